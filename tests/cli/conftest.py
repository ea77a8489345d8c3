"""The command line over a store of its own, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer.testing

from app.cli import app
from app.errors import CharloomError
from tests.web.conftest import put_models

Command = Callable[..., typer.testing.Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; its model store is said, so that no shipped models come."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLOOM_MODELS_DIR", "models")
    return tmp_path


@pytest.fixture
def charloom(here: Path) -> Command:
    """Runs ``charloom`` with arguments; errors of ours are raised."""

    def run(*arguments: str, input: str | bytes | None = None) -> typer.testing.Result:
        result = typer.testing.CliRunner().invoke(app, list(arguments), input=input)
        if isinstance(result.exception, CharloomError):
            raise result.exception
        return result

    return run


@pytest.fixture
def with_models(here: Path) -> Path:
    """A store with the models ``words`` and ``prose``."""
    return put_models(here / "models")
