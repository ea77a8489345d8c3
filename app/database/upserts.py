"""Insert rows that may exist, in the dialect of either database."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def insert_or_leave(session: Session, table: Any, **values: Any) -> None:
    """INSERT … ON CONFLICT DO NOTHING, whichever constraint the conflict is with."""
    session.execute(_insert(session, table).values(**values).on_conflict_do_nothing())


def insert_or_leave_all(session: Session, table: Any, rows: list[dict[str, Any]]) -> None:
    """The same for many rows at once; ``rows`` have the same keys, and plain values."""
    if rows:
        session.execute(_insert(session, table).on_conflict_do_nothing(), rows)


def insert_or_replace(
    session: Session, table: Any, rows: list[dict[str, Any]], keys: list[str]
) -> None:
    """INSERT … ON CONFLICT (keys) DO UPDATE of all other columns; ``rows`` have the same keys."""
    if not rows:
        return
    statement = _insert(session, table)
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), rows)


def _insert(session: Session, table: Any) -> Any:
    dialect = session.get_bind().dialect.name
    return (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table)
