"""A file is read in pieces of any size with the same result, and every error has its place."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidCorpus
from app.training import survey as reading
from app.training.survey import survey, text_pieces


def write(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@given(st.lists(st.sampled_from(["a", "唐", "\r", "\n", "\r\n", "\U0001f600"]), max_size=40))
def test_pieces_of_any_size_give_the_same_text(parts: list[str]) -> None:
    text = "".join(parts)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder), text)
        for size in (1, 2, 3, 1000):
            patch.setattr(reading, "_PIECE", size)
            plain = text.replace("\r\n", "\n").replace("\r", "\n")
            assert "".join(text_pieces(path)) == plain


def test_the_place_of_a_wrong_byte_is_right_in_later_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PIECE", 7)
    with pytest.raises(InvalidCorpus, match="byte 1000 "):
        survey(write(tmp_path, "唐x".encode() * 250 + b"\xffabc"))
