"""``charloom train`` from a file to a model that generates and scores, and what goes wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from app.cli import training
from app.errors import InvalidCorpus, InvalidInput, NotFound, UnknownModel
from app.store.artifact import read
from app.store.card import Lineage
from tests.cli.conftest import Command
from tests.processes import ending
from tests.serving import CHARLOOM

QUICK = ("--budget", "1.5s", "--hidden-size", "16")


@pytest.fixture
def names(here: Path) -> Path:
    """Made-up names, two syllables each."""
    syllables = ["ka", "lo", "mi", "ra", "ten", "sol", "vi", "ne", "do", "fa"]
    drawn = random.Random(1)
    lines = {"".join(drawn.choices(syllables, k=3)) for _ in range(600)}
    path = here / "names.txt"
    path.write_text("\n".join(sorted(lines)) + "\n")
    return path


def test_a_file_becomes_a_model_that_is_used(charloom: Command, names: Path, here: Path) -> None:
    result = charloom("train", "names.txt", "--name", "syllables", *QUICK, "--corpus", "made up")
    assert result.exit_code == 0, result.output
    assert "published syllables@1: lstm" in result.stdout
    assert "bits per character" in result.stdout
    for said in ("characters/s", "validation", "left", "as asked", "read as lines"):
        assert said in result.stderr
    with (here / "models/syllables/1.safetensors").open("rb") as stream:
        card = read(stream).card
    assert card.lineage.corpus == "made up"
    assert card.calibration
    assert card.test is not None
    assert card.verbatim_copy_rate is not None
    assert len(charloom("generate", "syllables", "-n", "4").stdout.splitlines()) == 4
    usual, odd = charloom("score", "syllables", input="kalomi\nqqqq\n").stdout.splitlines()
    assert float(usual.split()[0]) < float(odd.split()[0])
    again = charloom(
        "train", "names.txt", "--name", "syllables", *QUICK, "--base-model", "syllables"
    )
    assert "published syllables@2" in again.stdout


def test_any_argument_can_stand_in_the_card(
    names: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are no text, control characters: they must not lose what was trained."""
    monkeypatch.setattr("sys.argv", ["charloom", "train", "a b.txt", "x\x85\udcff\n"])
    command = Lineage.of(command=training._command()).command
    assert command == "charloom train 'a b.txt' 'x\ufffd\ufffd\ufffd'"


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_every_cell_trains(charloom: Command, names: Path, cell: str) -> None:
    result = charloom("train", "names.txt", "--name", cell, "--cell", cell, *QUICK)
    assert f"published {cell}@1: {cell} " in result.stdout


def test_chinese_trains_generates_and_scores(charloom: Command, here: Path) -> None:
    drawn = random.Random(2)
    lines = ["".join(drawn.choices("春江潮水连海平月共生", k=7)) for _ in range(800)]
    (here / "poems.txt").write_text("\n".join(lines), encoding="utf-8")
    result = charloom("train", "poems.txt", "--name", "poems", "--format", "text", *QUICK)
    assert "published poems@1" in result.stdout
    assert set(charloom("generate", "poems").stdout) <= set("春江潮水连海平月共生\n")
    assert "春江" in charloom("score", "poems", input="春江\n").stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"a", "at least"),
        (b"only one line\n", "at least"),
        (b"ok\nb\xffd\n", "byte 4"),
    ],
)
def test_a_file_that_cannot_be_learnt_says_why(
    charloom: Command, here: Path, content: bytes, says: str
) -> None:
    (here / "bad.txt").write_bytes(content)
    with pytest.raises(InvalidCorpus, match=says):
        charloom("train", "bad.txt", "--name", "bad", *QUICK)
    assert not list(here.glob("models/bad*"))


def test_what_was_asked_wrongly_is_named(charloom: Command, names: Path) -> None:
    with pytest.raises(InvalidInput, match="budget_seconds"):
        charloom("train", "names.txt", "--name", "x", "--budget", "0")
    with pytest.raises(InvalidInput, match="'a/b'"):
        charloom("train", "names.txt", "--name", "a/b")
    with pytest.raises(NotFound, match=r"gone\.txt"):
        charloom("train", "gone.txt", "--name", "x")
    with pytest.raises(UnknownModel, match="nobody"):
        charloom("train", "names.txt", "--name", "x", "--base-model", "nobody")
    with pytest.raises(InvalidInput, match="corpus must be one line"):
        charloom("train", "names.txt", "--name", "x", "--corpus", "two\nlines")
    assert charloom("train", "names.txt", "--name", "x", "--budget", "soon").exit_code == 2
    assert charloom("train", "names.txt", "--name", "x", "--cell", "cnn").exit_code == 2


def _training(*asked: str) -> subprocess.Popen[bytes]:
    program = [*CHARLOOM, "train", "names.txt"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHARLOOM_")}
    return subprocess.Popen(
        [*program, "--name", "cut", *asked], stderr=subprocess.PIPE, env=environment
    )


def _interrupted_after(process: subprocess.Popen[bytes], said: bytes) -> tuple[int, bytes]:
    """Interrupt once ``said`` was printed; the exit code and what is printed after that."""
    assert process.stderr is not None
    while said not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    return process.returncode, printed


@pytest.mark.parametrize(("choice", "code"), [("publish", 0), ("discard", 130)])
def test_ctrl_c_stops_cleanly(here: Path, choice: str, code: int) -> None:
    drawn = random.Random(1)  # more text than is read through within the test
    lines = ("".join(drawn.choices("abcdefghij", k=9)) for _ in range(100_000))
    (here / "names.txt").write_text("\n".join(lines) + "\n")
    asked = ["--budget", "10m", "--hidden-size", "16", "--on-interrupt", choice]
    with ending(_training(*asked)) as process:
        ended, _ = _interrupted_after(process, b"characters/s")
    assert ended == code
    assert (here / "models/cut/1.safetensors").exists() is (choice == "publish")


@pytest.mark.parametrize(("choice", "code"), [("ask", 0), ("discard", 130)])
def test_ctrl_c_when_all_is_trained_loses_nothing(
    names: Path, here: Path, choice: str, code: int
) -> None:
    with ending(_training(*QUICK, "--on-interrupt", choice)) as process:
        ended, printed = _interrupted_after(process, b"measuring")
    assert ended == code
    assert (b"nearly done" in printed) is (choice == "ask")
    assert (here / "models/cut/1.safetensors").exists() is (choice == "ask")


def test_errors_are_one_line_on_standard_error(here: Path) -> None:
    program = [*CHARLOOM, "generate", "nobody"]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("charloom: There is no model 'nobody'")
    assert len(ran.stderr.splitlines()) == 1
