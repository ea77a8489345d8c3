"""A registry over a folder of its own, in each of the databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.catalog.models import Registry
from app.database.session import Database
from app.store.blobs import BlobStore


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def registry(database: Database, models_dir: Path) -> Registry:
    return Registry(database, BlobStore(str(models_dir)))
