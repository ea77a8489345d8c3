"""The command line answers at once: what a command does not need it does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from app.cli import COMMANDS, app
from app.jobs.spec import JobSpec
from app.settings import Settings
from app.wiring.full import FullInstallation
from tests.jobs.making import NETWORK, TRAINING, WORDS
from tests.models import tiny_artifact

HEAVY = {
    "alembic", "fastapi", "fsspec", "httpx", "llvmlite", "numba", "prometheus_client", "scipy",
    "starlette", "torch", "uvicorn",
}  # fmt: skip
#: What only commands that look into the database need.
FOR_ROWS = {"numpy", "psutil", "rich", "sqlalchemy"}
SHOW = """
import sys
from app.cli import app
from contextlib import suppress
from app.errors import CharloomError
with suppress(CharloomError):
    app({arguments!r}, standalone_mode=False)
print("\\n" + " ".join(name for name in sys.modules if "." not in name))
"""


def imported(folder: Path, *arguments: str) -> set[str]:
    """The top-level packages that a command has imported when it is done."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHARLOOM_")} | {
        "CHARLOOM_DATA_DIR": str(folder / "data"),
        "CHARLOOM_MODELS_DIR": str(folder / "models"),
    }
    shown = subprocess.check_output(
        [sys.executable, "-c", SHOW.format(arguments=list(arguments))], text=True, env=environment
    )
    return set(shown.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_version_import_next_to_nothing(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert imported(tmp_path, *arguments) & (HEAVY | FOR_ROWS) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_imports_nothing_that_works(tmp_path: Path, name: str) -> None:
    assert imported(tmp_path, name, "--help") & (HEAVY | FOR_ROWS) <= {"rich"}


@pytest.mark.parametrize("arguments", [("models",), ("jobs",), ("jobs", "list", "--json")])
def test_looking_at_models_and_jobs_computes_nothing(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """With a model and a job to look at: a model's card is read, its weights are not."""
    settings = Settings(data_dir=tmp_path / "data", models_dir=str(tmp_path / "models"))
    with FullInstallation(settings) as installation:
        installation.registry.publish("words", tiny_artifact())
        text = tmp_path / "words.txt"
        text.write_text("\n".join(WORDS))
        dataset = installation.datasets.add(text, "words", "lines")
        document = {"model": "words", "dataset": dataset.id, "network": NETWORK}
        installation.jobs.submit(JobSpec.parse({**document, "training": TRAINING}))
    (tmp_path / "data" / "charloom.sqlite3").rename(tmp_path / "kept")
    assert "alembic" in imported(tmp_path, *arguments)  # the first time there are no tables yet
    (tmp_path / "kept").rename(tmp_path / "data" / "charloom.sqlite3")
    assert imported(tmp_path, *arguments) & HEAVY == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "words"),
        ("score", "words", __file__),
        ("models",),
        ("jobs", "list"),
        ("train", __file__, "--name", "words", "--detach"),
    ],
)
def test_a_server_does_the_work_that_it_is_asked_for(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Nobody listens at the address; what was imported to ask is what counts."""
    found = imported(tmp_path, *arguments, "--url", "http://127.0.0.1:9")
    assert "httpx" in found
    assert found & (HEAVY | {"sqlalchemy"}) == {"httpx"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_each_command_says_of_itself(name: str) -> None:
    command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    assert command.help.startswith(COMMANDS[name])
