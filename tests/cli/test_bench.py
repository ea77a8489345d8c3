"""``charloom bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import InvalidInput, UnknownModel
from tests.cli.conftest import Command


def test_a_model_of_the_store(charloom: Command, with_models: Path) -> None:
    result = charloom("bench", "words", "--rows", "1,5", "--seconds", "0.01")
    assert result.exit_code == 0
    assert "writing" in result.stdout
    assert "scoring" in result.stdout
    assert "plain loop" in result.stdout
    assert result.stdout.count(" x ") >= 4


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
