"""Migrations: from nothing, again, by several at once, from a newer version, and failing ones."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, make_url, text

from app.database import dataset_tables, job_tables, migration
from app.database.model_tables import ModelRow
from app.database.session import Database
from app.database.tables import REVISION, Base
from app.errors import Conflict, Overloaded
from tests.database.migrating import migrate_to
from tests.database.test_session import held, impatient

NEWEST = ScriptDirectory.from_config(migration.configuration()).get_current_head()
TABLES = {*Base.metadata.tables, "alembic_version"}
assert {dataset_tables.DatasetRow.__tablename__, job_tables.JobRow.__tablename__} <= TABLES


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    """A database without a table, of either kind."""
    with closing(Database(database_url)) as database:
        yield database


def revision_of(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def schema(database: Database) -> dict[str, Any]:
    """Everything the database says about its tables, in a form that can be compared."""
    inspector = inspect(database.engine)

    def plain(facts: Any) -> list[str]:
        return sorted(str(sorted((k, str(v)) for k, v in fact.items())) for fact in facts)

    return {
        table: {
            "columns": plain(inspector.get_columns(table)),
            "key": str(inspector.get_pk_constraint(table)),
            "references": plain(inspector.get_foreign_keys(table)),
            "unique": plain(inspector.get_unique_constraints(table)),
            "checks": plain(inspector.get_check_constraints(table)),
            "indexes": plain(inspector.get_indexes(table)),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def set_revision(database: Database, revision: str) -> None:
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :n"), {"n": revision})


def test_from_nothing_and_again(empty: Database) -> None:
    assert revision_of(empty) is None
    empty.migrate()
    assert revision_of(empty) == NEWEST
    assert set(inspect(empty.engine).get_table_names()) == TABLES
    before = schema(empty)
    with empty.session() as session:
        session.add(ModelRow(name="names", next_version=3, created_at=0))
    empty.migrate()
    assert schema(empty) == before
    with empty.session() as session:
        assert session.get_one(ModelRow, "names").next_version == 3


def test_the_migrations_make_what_the_code_knows(empty: Database) -> None:
    Base.metadata.create_all(empty.engine)
    wanted = schema(empty)
    Base.metadata.drop_all(empty.engine)
    empty.migrate()
    assert schema(empty) == wanted
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    if empty.engine.dialect.name == "sqlite":
        # What SQLite says of an index leaves out that a column descends.
        differences = [each for each in differences if "ix_jobs_state_priority" not in str(each)]
    assert differences == []


def test_every_step_goes_down_and_up(empty: Database) -> None:
    script = ScriptDirectory.from_config(migration.configuration())
    revisions = [step.revision for step in script.walk_revisions()][::-1]
    schemas = {}
    for revision in revisions:
        migrate_to(empty, revision)
        schemas[revision] = schema(empty)
        assert revision_of(empty) == revision
    for revision in revisions[-2::-1]:
        migrate_to(empty, revision)
        assert schema(empty) == schemas[revision]
    migrate_to(empty, "base")
    assert schema(empty) == {}
    migrate_to(empty, "base")
    empty.migrate()
    assert schema(empty) == schemas[revisions[-1]]


def test_a_database_of_a_newer_version_is_refused_and_left_alone(empty: Database) -> None:
    empty.migrate()
    set_revision(empty, "0099")
    before = schema(empty)
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            empty.migrate()
        assert caught.value.code == "database_newer"
        assert caught.value.message.isprintable()
        for said in ("newer Charloom", "0099", str(NEWEST), "CHARLOOM_DATA_DIR"):
            assert said in caught.value.message
    assert schema(empty) == before
    assert revision_of(empty) == "0099"
    set_revision(empty, str(NEWEST))
    empty.migrate()


def test_a_database_of_an_older_version_is_brought_up_with_what_is_in_it(empty: Database) -> None:
    migrate_to(empty, "0001")
    with empty.session() as session:
        session.add(ModelRow(name="names", next_version=3, created_at=0))
        session.flush()
        session.execute(
            text(
                "INSERT INTO model_versions (model_name, version, sha256, uri, card, created_at)"
                " VALUES ('names', 1, '00', 'names/1.safetensors', '{}', 0)"
            )
        )
        session.execute(text("INSERT INTO model_aliases VALUES ('names', 'production', 1)"))
    empty.migrate()
    with empty.session() as session:
        assert session.get_one(ModelRow, "names").next_version == 3
        aliases = session.execute(text("SELECT alias, version FROM model_aliases")).all()
        assert [tuple(each) for each in aliases] == [("production", 1)]


def test_a_database_that_is_somebody_elses_is_not_touched(empty: Database) -> None:
    with empty.session() as session:
        session.execute(text("CREATE TABLE models (own INTEGER)"))
        session.execute(text("INSERT INTO models VALUES (7)"))
    with pytest.raises(Conflict, match="another program") as caught:
        empty.migrate()
    assert caught.value.code == "database_foreign"
    assert inspect(empty.engine).get_table_names() == ["models"]
    with empty.session() as session:
        assert session.execute(text("SELECT own FROM models")).scalar_one() == 7


def migrate_here(url: str, together: Any) -> None:
    with closing(Database(url)) as database:
        together.wait()
        database.migrate()


def test_several_servers_starting_at_once(database_url: str, empty: Database) -> None:
    spawned = multiprocessing.get_context("spawn")
    together = spawned.Barrier(3)
    arguments = (database_url, together)
    servers = [spawned.Process(target=migrate_here, args=arguments, daemon=True) for _ in "123"]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
    assert [server.exitcode for server in servers] == [0, 0, 0]
    assert revision_of(empty) == NEWEST
    assert set(inspect(empty.engine).get_table_names()) == TABLES


def test_several_threads_at_once(empty: Database) -> None:
    errors = list[BaseException]()

    def go() -> None:
        try:
            empty.migrate()
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert revision_of(empty) == NEWEST


STEP = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9000", "{down}"


def upgrade() -> None:
    op.create_table("half", sa.Column("x", sa.Integer()))
    op.execute("{statement}")


def downgrade() -> None:
    op.drop_table("half")
"""


def test_the_newest_step_is_the_revision_of_this_code() -> None:
    """Else a database that is behind would be taken for current, and never migrated."""
    assert REVISION == NEWEST


def with_a_step(folder: Path, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the migrations end with a step of the test's own."""
    copy = folder / "100% migrations"
    shutil.copytree(migration.MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "versions/9000_own.py").write_text(STEP.format(down=NEWEST, statement=statement))
    monkeypatch.setattr(migration, "MIGRATIONS", copy)
    monkeypatch.setattr("app.database.session.REVISION", "9000")


def test_a_step_that_fails_leaves_nothing_of_itself(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.migrate()
    before = schema(empty)
    with_a_step(tmp_path, "INSERT INTO no_such_table VALUES (1)", monkeypatch)
    with pytest.raises(Exception, match="no_such_table"):
        empty.migrate()
    assert schema(empty) == before
    assert revision_of(empty) == NEWEST


def test_a_step_that_breaks_references_is_taken_back(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = "INSERT INTO model_aliases VALUES ('nobody', 'production', 1)"
    with_a_step(tmp_path, orphan, monkeypatch)
    with pytest.raises(AssertionError, match="broke foreign keys"):
        sqlite_database.migrate()
    assert revision_of(sqlite_database) == NEWEST
    with sqlite_database.session() as session:
        assert session.execute(text("SELECT count(*) FROM model_aliases")).scalar_one() == 0
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def test_a_newer_code_brings_the_database_up_and_an_older_one_refuses_it(
    empty: Database, tmp_path: Path
) -> None:
    empty.migrate()
    with pytest.MonkeyPatch.context() as newer:
        with_a_step(tmp_path, "INSERT INTO half VALUES (1)", newer)
        empty.migrate()
        assert revision_of(empty) == "9000"
    with pytest.raises(Conflict, match="newer Charloom"):
        empty.migrate()
    with pytest.MonkeyPatch.context() as newer:
        newer.setattr(migration, "MIGRATIONS", tmp_path / "100% migrations")
        migrate_to(empty, str(NEWEST))
    empty.migrate()


def test_a_locked_file_is_not_migrated_by_force(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        impatient(database).ping()
        with held(sqlite_url, "BEGIN IMMEDIATE"), pytest.raises(Overloaded):
            database.migrate()
        database.migrate()
    with closing(sqlite3.connect(str(make_url(sqlite_url).database))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
