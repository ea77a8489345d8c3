"""Alembic's migrations from each schema to the next; see ``app.database.migration``."""
