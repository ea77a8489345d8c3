"""Run by Alembic around every step.

Connection and metadata come from the configuration that ``database.migration`` of
the package makes: this file is found by its path, and the package may have been
imported as ``app`` (in the repository) or as ``charloom`` (installed).
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    render_as_batch=True,  # SQLite alters by copying
    transactional_ddl=True,  # true of both databases, as begun in database.session
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
