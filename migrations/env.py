"""Run by Alembic around every step; the connection comes from ``app.database.migration``.

On the command line (``alembic revision --autogenerate``; pyproject.toml says
where things are) there is none, and one is made from the settings.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.database import dataset_tables, job_tables  # noqa: F401 (tables of the metadata)
from app.database.session import Database
from app.database.tables import Base
from app.settings import Settings


def run(connection: Connection) -> None:
    """The steps asked for, in the transaction that ``connection`` is in."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite alters by copying
        transactional_ddl=True,  # true of both databases, as begun in app.database.session
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with Database(Settings().resolved_database_url).engine.connect() as own, own.begin():
        run(own)
