"""What the start passes over, what ends it, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from app.catalog.datasets import Datasets
from app.database.session import Database
from app.engine.metrics import Metrics
from app.errors import Overloaded, StorageFailed
from app.main import create_app
from app.settings import Settings
from app.web.dependencies import open_backend
from app.web.http.lifecycle import Lifecycle
from tests import disks
from tests.web.conftest import put_models


@pytest.fixture
def its(tmp_path: Path) -> Settings:
    """The settings of a server of its own."""
    models = put_models(tmp_path / "models")
    return Settings(models_dir=str(models), data_dir=tmp_path / "data", training_slots=0)


class Told(Lifecycle):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "progress" and value:
            refusal = self.refusal()
            assert refusal is not None
            self.said.append(refusal.message)


async def start(settings: Settings, lifecycle: Lifecycle) -> list[str]:
    """Start and stop; returns the models there."""
    metrics = Metrics(CollectorRegistry())
    async with open_backend(settings, metrics, lifecycle) as backend:
        return [each.id for each in backend.registry.list()]


def test_a_start_says_how_far_it_is(its: Settings) -> None:
    told = Told()
    assert asyncio.run(start(its, told)) == ["prose@1", "words@1"]
    assert told.said == [
        "The server is starting: preparing the database.",
        "The server is starting: looking into the model store.",
        "The server is starting: 0 of 2 model files checked.",
        "The server is starting: 1 of 2 model files checked.",
        "The server is starting: preparing inference.",
    ]


def test_a_start_ends_when_the_server_is_stopped(its: Settings) -> None:
    class Stopped(Told):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "progress" and "1 of 2" in value:
                self.draining.set()

    lifecycle = Stopped()
    with pytest.raises(Overloaded) as refused:
        asyncio.run(start(its, lifecycle))
    assert refused.value.code == "draining"
    assert "preparing inference" not in "".join(lifecycle.said)


def test_a_folder_that_cannot_be_read_does_not_end_the_start(
    its: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    locked = Path(its.models_dir) / "prose"
    with disks.unreadable_folder(locked), TestClient(create_app(its)) as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["words"]
    assert "skipped prose: it cannot be read: permission denied" in caplog.text


def test_damage_in_the_database_does_not_end_the_start(
    its: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert asyncio.run(start(its, Lifecycle())) == ["prose@1", "words@1"]
    database = Database(its.resolved_database_url)
    with database.session() as session:
        session.execute(text("UPDATE model_versions SET card = '{' WHERE model_name = 'prose'"))
        session.execute(text("UPDATE model_versions SET card = '{\"size_bytes\": 1}' "
                             "WHERE model_name = 'words'"))  # fmt: skip
    database.close()
    assert asyncio.run(start(its, Lifecycle())) == ["words@1"]
    assert "skipped prose/1.safetensors: its row in the database is damaged" in caplog.text
    assert "skipped words/1.safetensors: The file of words@1 is not the one" in caplog.text


def test_old_temporary_files_do_not_end_the_start(
    its: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sweep(self: Datasets) -> int:
        raise StorageFailed("The store cannot be read.")

    monkeypatch.setattr(Datasets, "sweep", sweep)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(start(its, Lifecycle())) == ["prose@1", "words@1"]
    assert "temporary files of datasets stay: The store cannot be read." in caplog.text
