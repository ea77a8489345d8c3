"""The frame of a model file, held against what other readers of the format make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from app.errors import InvalidArtifact, TooLarge
from app.store.header import (
    MAX_HEADER,
    PREFIX,
    Entry,
    header_length,
    make_header,
    parse_header,
    parse_json,
    refuse,
)

ENTRIES = {"a": Entry("F32", (2, 3), 0, 24), "b": Entry("F16", (4,), 24, 32)}


@pytest.mark.parametrize("card", ["", "{}", "汉\n\0\u2028", '"\\', "x" * 1000])
def test_a_header_is_read_as_it_was_made(card: str) -> None:
    header = make_header(card, ENTRIES)
    assert len(header) % PREFIX == 0
    assert header_length(header[:PREFIX], len(header)) == len(header) - PREFIX
    found, entries = parse_header(header[PREFIX:])
    assert found == card
    assert list(entries.items()) == list(ENTRIES.items())


def test_the_format_is_that_of_safetensors() -> None:
    theirs = save({"a": torch.ones(2, 3), "b": torch.ones(4)}, {"charloom": "card"})
    length = header_length(theirs, len(theirs))
    card, entries = parse_header(theirs[PREFIX : PREFIX + length])
    assert card == "card"
    assert entries == {"a": Entry("F32", (2, 3), 0, 24), "b": Entry("F32", (4,), 24, 40)}


def test_others_find_the_card(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(make_header("the card", ENTRIES) + b"\0" * 32)
    with safe_open(path, "numpy") as opened:
        assert opened.metadata()["charloom"] == "the card"
        assert opened.get_tensor("a").shape == (2, 3)


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER])
def test_a_possible_length(length: int) -> None:
    assert header_length(length.to_bytes(8, "little"), length + 8) == length


@pytest.mark.parametrize("length", [2, MAX_HEADER + 1, 2**63, 2**64 - 1])
def test_an_impossible_length(length: int) -> None:
    with pytest.raises(InvalidArtifact):
        header_length(length.to_bytes(8, "little"), 9)


def test_a_card_that_does_not_fit() -> None:
    make_header("x" * (MAX_HEADER - 500), ENTRIES)
    with pytest.raises(TooLarge, match="remove rare characters"):
        make_header("x" * MAX_HEADER, ENTRIES)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '{"b":[{"a":1,"a":2}]}', b'{"a":1,"\\u0061":2}'])
def test_a_name_that_comes_twice_is_refused_at_any_depth(text: str | bytes) -> None:
    with pytest.raises(InvalidArtifact, match="its card names something twice"):
        parse_json(text, "its card")
    assert parse_json('{"a":{"a":1}}', "its card") == json.loads('{"a":{"a":1}}')


def test_a_refusal_shows_nothing_that_moves_a_cursor() -> None:
    with pytest.raises(InvalidArtifact) as caught:
        refuse("a\x1b[31m b\u202e c\n汉 \ud800 é")
    assert caught.value.message.endswith(": a\\x1b[31m b\\u202e c\\n汉 \\ud800 é.")
