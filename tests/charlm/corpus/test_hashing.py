"""Hashes of lines do not depend on the pieces in which a text comes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.corpus import hashing
from app.charlm.corpus.hashing import Hashes, hashed_lines, mixed, values_of
from app.charlm.vocabulary import code_points

_BASE = 0x9E3779B97F4A7C15


def reference(text: str) -> list[tuple[int, int, int]]:
    """Start, length and hash of each line that is not empty, character by character."""
    found, start = [], 0
    for line in text.split("\n"):
        total = sum((ord(c) + 1) * pow(_BASE, i, 2**64) for i, c in enumerate(line, 1)) % 2**64
        if line:
            found.append((start, len(line), int(mixed(np.array([total], dtype=np.uint64))[0])))
        start += len(line) + 1
    return found


@given(st.text("abc唐\n\n\U0001f600", max_size=60), st.integers(1, 9), st.integers(1, 70))
def test_every_line_has_its_place_and_hash(text: str, block: int, piece: int) -> None:
    def pieces() -> Iterator[Hashes]:
        for first in range(0, len(text), piece):
            yield values_of(code_points(text[first : first + piece]), ord("\n"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_BLOCK", block)
        found = [
            (int(start), int(length), int(hash))
            for lines in hashed_lines(pieces())
            for start, length, hash in zip(*lines, strict=True)
        ]
    assert found == reference(text)


def test_splitmix_is_as_published() -> None:
    # The first output of the generator with the seed 0.
    assert int(mixed(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF
