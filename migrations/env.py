"""Run by Alembic for every upgrade or downgrade.

Connection and metadata come from the configuration that the package's ``database.migration``
builds, because this file is found by its path and cannot know whether the package was imported
as ``app`` (in the repository) or as ``charloom`` (installed).
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,  # holds for both databases, given how database.session begins
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
