"""A server over two small models, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.charlm.network_config import NetworkConfig
from app.main import create_app
from app.settings import Settings
from app.store.artifact import write
from tests.models import tiny_artifact

LETTERS = "abcdefghij "
NETWORK = NetworkConfig(cell="lstm", hidden_size=16, embedding_size=8)


def put_models(folder: Path) -> Path:
    """A line model ``words`` and a text model ``prose``, untrained."""
    artifacts = {
        "words": tiny_artifact(characters=LETTERS, config=NETWORK, seed=1),
        "prose": tiny_artifact(
            characters=LETTERS + "\n汉😀", config=NETWORK, seed=2, format="text"
        ),
    }
    for name, artifact in artifacts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "1.safetensors").write_bytes(write(artifact))
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("server")
    return Settings(
        models_dir=str(put_models(folder / "models")),
        data_dir=folder / "data",
        default_model="words",
        training_slots=0,
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client
