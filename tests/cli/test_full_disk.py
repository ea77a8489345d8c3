"""The command line where a disk is full or takes nothing: one line that says what to do."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.database.session import Database
from app.errors import StorageFailed
from app.store.artifact import read
from tests import disks
from tests.cli.conftest import Command
from tests.serving import CHARLOOM

ROOM = 260_000  # more than the database, less than the model
TRAIN = ("train", "words.txt", "--name", "words", "--budget", "0.5s", "--hidden-size", "192")


@pytest.fixture
def words(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small corpus, and a folder of this test's own for temporary files."""
    path = here / "words.txt"
    path.write_text("\n".join(f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in "nrst"))
    (here / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here / "temporary"))
    return path


def everything(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".filling"
    )


def outside(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program itself, as from a shell."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHARLOOM_")}
    environment["CHARLOOM_MODELS_DIR"] = "models"  # said, so that no shipped models come
    return subprocess.run(
        [*CHARLOOM, *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_model_that_does_not_fit_is_kept_elsewhere(
    charloom: Command, words: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charloom("models")  # the database is there before the disk is full
    with disks.full_disk(here / "disk", ROOM) as disk:
        monkeypatch.setenv("CHARLOOM_MODELS_DIR", str(disk / "models"))
        with pytest.raises(StorageFailed) as caught:
            charloom(*TRAIN)
        said = caught.value.message
        assert said.startswith("words/1.safetensors cannot be stored or read: ")
        assert "free some space and try again" in said or "raise that limit" in said
        assert everything(disk) == []
        assert "words" not in charloom("models").stdout
    kept = everything(here / "temporary")
    if "is kept in" not in said:  # without a disk of its own, nothing as long fits anywhere
        assert kept == []
        return
    (rescued,) = kept
    assert f"temporary/{rescued}" in said
    assert "words/NUMBER.safetensors" in said
    with (here / "temporary" / rescued).open("rb") as stream:
        assert read(stream).card.hidden_size == 192
    (here / "models/words").mkdir(parents=True)
    (here / "temporary" / rescued).rename(here / "models/words/7.safetensors")
    monkeypatch.delenv("CHARLOOM_MODELS_DIR")
    assert charloom("generate", "words@7", "-n", "2").exit_code == 0


def test_a_model_that_fits_nowhere_leaves_nothing(
    charloom: Command, words: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charloom("models")
    with disks.full_disk(here / "disk", ROOM) as disk:
        (disk / "temporary").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(disk / "temporary"))
        monkeypatch.setenv("CHARLOOM_MODELS_DIR", str(disk / "models"))
        with pytest.raises(StorageFailed) as caught:
            charloom(*TRAIN)
        assert "is kept in" not in caught.value.message
        assert everything(disk) == []


def in_one_line(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 1
    assert ran.stdout == ""
    *log, said = ran.stderr.splitlines()
    assert all(" INFO " in line for line in log), ran.stderr  # it listened before it looked
    assert said.startswith("charloom: ")
    return said


Prepare = Callable[[Path], object]


def migrate(folder: Path) -> None:
    with closing(Database(f"sqlite:///{folder}/data/charloom.sqlite3")) as database:
        database.migrate()


@pytest.mark.parametrize("prepare", [lambda folder: None, migrate], ids=["new", "in use"])
def test_serving_from_a_read_only_folder_says_so_in_one_line(here: Path, prepare: Prepare) -> None:
    (here / "own").mkdir()
    prepare(here / "own")
    with disks.read_only_disk(here / "own") as folder:
        before = everything(here / "own")
        said = in_one_line(outside("serve", "--port", "0", CHARLOOM_DATA_DIR=f"{folder}/data"))
        assert "CHARLOOM_DATA_DIR says where it is" in said
        assert "created" in said or "read-only" in said
        assert everything(here / "own") == before


def test_training_without_a_scratch_folder_says_so_in_one_line(here: Path, words: Path) -> None:
    (here / "own").mkdir()
    with disks.read_only_disk(here / "own") as folder:
        said = in_one_line(
            outside(
                *TRAIN,
                CHARLOOM_DATA_DIR=f"{folder}/data",
                CHARLOOM_DATABASE_URL=f"sqlite:///{here}/charloom.sqlite3",
            )
        )
    assert "The data folder is gone, or could not be created" in said
    assert not (here / "models").exists()


def test_models_on_a_read_only_disk_are_used(with_models: Path, charloom: Command) -> None:
    left = with_models / "words" / f".2.safetensors.{'ab' * 16}.part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    with disks.read_only_disk(with_models):
        assert "words" in charloom("models").stdout
        assert charloom("generate", "words", "--max-tokens", "5").exit_code == 0
