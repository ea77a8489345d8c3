"""Migrate the existing tables to those of this code, one server at a time.

Takes an engine; the migrations are Alembic's, in ``migrations/``. Alembic gets the metadata
through its configuration, so a migration need not know under which name this package was
imported.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ..errors import Conflict
from ..shipped import shipped
from . import dataset_tables, deletion_tables, job_tables, model_tables  # noqa: F401 (tables of the metadata)
from .tables import Base

MIGRATIONS: Final = shipped("migrations")

# Any number; every version of Charloom must use the same.
_ADVISORY_LOCK: Final = 0x636861726C6F6F6D

_DUPLICATE_TABLE: Final = "42P07"  # PostgreSQL's code; its messages may be in any language

# Alembic keeps the running migration in module globals.
_one_in_this_process = threading.Lock()


def migrate(engine: Engine) -> None:
    """Upgrade to the newest revision in one transaction; does nothing if already there.

    Raises Conflict when the database is at a revision that this code does not know, or
    belongs to another program.
    """
    config = configuration()
    script = ScriptDirectory.from_config(config)
    with _one_in_this_process, _exclusive(engine) as connection:
        config.attributes["connection"] = connection
        current = MigrationContext.configure(connection).get_current_revision()
        known = [step.revision for step in script.walk_revisions()]  # newest first
        if current is not None and current not in known:
            raise Conflict(
                f"The database was made by a newer Charloom (its revision is {current}, and this "
                f"one knows revisions up to {known[0]}). Run that version, or set "
                "CHARLOOM_DATABASE_URL or CHARLOOM_DATA_DIR to another database.",
                code="database_newer",
            )
        with _refusing_foreign_tables(new=current is None):
            command.upgrade(config, "head")


@contextmanager
def _refusing_foreign_tables(*, new: bool) -> Iterator[None]:
    """Raise Conflict if a database without a revision has tables named like ours."""
    try:
        yield
    except DBAPIError as error:
        there = getattr(error.orig, "sqlstate", None) == _DUPLICATE_TABLE or (
            "already exists" in str(error.orig)
        )
        if not (new and there):
            raise
        raise Conflict(
            "The database has tables of another program with the same names as ours. Set "
            "CHARLOOM_DATABASE_URL or CHARLOOM_DATA_DIR to another database.",
            code="database_foreign",
        ) from error


def configuration() -> Config:
    """Alembic's configuration, built here so that no file needs to be found at run time."""
    config = Config()
    # ConfigParser reads % as the start of a substitution.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["metadata"] = Base.metadata
    return config


@contextmanager
def _exclusive(engine: Engine) -> Iterator[Connection]:
    """A transaction with a lock: a second migrating server waits until it ends."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # SQLite alters a table by copying it, and dropping the old one would
            # delete rows that refer to it. The pragma has no effect inside a transaction.
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():  # BEGIN IMMEDIATE
                    yield connection
                    broken = connection.execute(text("PRAGMA foreign_key_check")).all()
                    assert not broken, f"a migration broke foreign keys: {broken[:3]}"
            finally:
                driver.execute("PRAGMA foreign_keys=ON")
            return
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            yield connection
