"""A place with a dataset, on SQLite and on PostgreSQL in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.database.session import Database
from tests.jobs.making import Place, make_place


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Place:
    return make_place(database, tmp_path)


@pytest.fixture
def sqlite_place(sqlite_database: Database, tmp_path: Path) -> Place:
    return make_place(sqlite_database, tmp_path)
