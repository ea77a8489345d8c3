"""Alembic's steps from each layout of the database to the next; see ``app.database.migration``."""
