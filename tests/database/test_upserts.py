"""Inserting what may be there already, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from app.database.model_tables import ModelRow
from app.database.session import Database
from app.database.upserts import insert_or_leave, insert_or_replace


def rows(database: Database) -> dict[str, int]:
    with database.session(read_only=True) as session:
        return {row.name: row.next_version for row in session.query(ModelRow)}


def test_what_is_there_is_left(database: Database) -> None:
    for version in (1, 2):
        with database.session() as session:
            insert_or_leave(session, ModelRow, name="names", next_version=version, created_at=0)
    assert rows(database) == {"names": 1}
    with pytest.raises(IntegrityError), database.session() as session:
        insert_or_leave(session, ModelRow, name="zero", next_version=0, created_at=0)


def test_what_is_there_is_replaced(database: Database) -> None:
    for version in (1, 2):
        new = [
            {"name": name, "next_version": version, "created_at": 0}
            for name in ("a", "b", "cd"[version - 1])
        ]
        with database.session() as session:
            insert_or_replace(session, ModelRow, new, ["name"])
    with database.session() as session:
        insert_or_replace(session, ModelRow, [], ["name"])
    assert rows(database) == {"a": 2, "b": 2, "c": 1, "d": 2}
