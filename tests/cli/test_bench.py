"""``charloom bench``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.cli import console
from app.cli.benchmark import _table
from app.engine.bench import Result
from app.errors import InvalidInput, UnknownModel
from tests.cli.conftest import Command


def test_a_model_of_the_store(charloom: Command, with_models: Path) -> None:
    result = charloom("bench", "words", "--rows", "1,5", "--seconds", "0.01")
    assert result.exit_code == 0
    described, header, *rows = result.stdout.splitlines()
    assert described.startswith("words, lstm 1 x 16")
    assert "plain loop" in header
    told = [(row.split()[0], int(row.split()[1])) for row in rows]
    assert told == [("writing", 1), ("writing", 5), ("scoring", 1), ("scoring", 5)]
    assert all(re.search(r"\d x .*\d%$", row.rstrip()) for row in rows)


def test_figures_of_any_size_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(_table([Result("scoring", 256, 2, *[123_456_789.0] * 4)]))
    assert capsys.readouterr().out.splitlines()[-1].count("123,456,789") == 3


def test_a_shape_as_json(charloom: Command) -> None:
    result = charloom(
        "bench", "--shape", "gru:1x16", "--rows", "2", "--threads", "1,2", "--seconds", "0.01",
        "--precision", "float32", "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert document["network"] == "gru:1x16, gru 1 x 16, 100 symbols, float32"
    assert document["processor"]
    assert [(each["task"], each["rows"], each["threads"]) for each in document["results"]] == [
        ("writing", 2, 1), ("scoring", 2, 1), ("writing", 2, 2), ("scoring", 2, 2),
    ]  # fmt: skip
    assert all(each["engine"] > 0 for each in document["results"])


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ([], "model"),
        (["words", "--shape", "lstm:2x16"], "model"),
        (["--shape", "lstm"], "shape"),
        (["--shape", "what:1x2"], "shape"),
        (["--shape", "lstm:1x16", "--rows", "1,x"], "rows"),
        (["--shape", "lstm:1x16", "--threads", "0"], "threads"),
        (["--shape", "lstm:1x16", "--precision", "int4"], "precision"),
    ],
)
def test_what_cannot_be_is_said(charloom: Command, arguments: list[str], param: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        charloom("bench", *arguments)
    assert caught.value.param == param


def test_a_model_that_is_not_there(charloom: Command) -> None:
    with pytest.raises(UnknownModel):
        charloom("bench", "nobody", "--seconds", "0.01")
