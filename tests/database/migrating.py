"""Move the tables of a test to any revision, up or down."""

from __future__ import annotations

from alembic import command
from alembic.runtime.migration import MigrationContext

from app.database import migration
from app.database.session import Database


def migrate_to(database: Database, revision: str) -> None:
    """Upgrade or downgrade to ``revision``, or to ``base``: no tables at all."""
    config = migration.configuration()
    with migration._exclusive(database.engine) as connection:
        config.attributes["connection"] = connection
        current = MigrationContext.configure(connection).get_current_revision()
        # Revisions are numbers of four digits.
        if current is not None and (revision == "base" or revision < current):
            command.downgrade(config, revision)
        elif revision != "base":
            command.upgrade(config, revision)
