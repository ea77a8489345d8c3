"""Figures of lengths from counts equal those of numpy over the whole list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.training import line_lengths
from app.training.line_lengths import LineLengths, guess_format

LENGTHS = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 500)), min_size=1, max_size=80)


def counted(lengths: list[int], at: int = 0) -> LineLengths:
    """Lengths in two parts."""
    counts = LineLengths()
    for part in (lengths[:at], lengths[at:]):
        counts.add(np.array(part, dtype=np.int64))
    return counts


@given(LENGTHS, st.integers(0, 80), st.floats(0, 1))
def test_every_figure_is_exact(lengths: list[int], at: int, share: float) -> None:
    counts, filled = counted(lengths, at), [length for length in lengths if length]
    assert counts.filled == len(filled)
    assert counts.longest == max(lengths)
    stripped = "".join("x" if length else " " for length in lengths).rstrip()
    assert counts.empty_between == stripped.count(" ")
    for one in (share, 0.5, 0.95):
        if filled:
            assert counts.quantile(one) == np.quantile(filled, one)


def test_long_lines_are_counted_too() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_lengths, "_COUNTED", 10)
        counts = counted([3, 9, 10, 11, 500, 500], 2)
    assert (counts.filled, counts.longest) == (6, 500)
    assert counts.quantile(0.5) == 10.5


@pytest.mark.parametrize(
    ("lengths", "guessed"),
    [
        ([5, 6, 7, 0], "lines"),
        ([5, 6, 7, 8], "lines"),
        ([5, 0, 7, 8], "text"),
        ([5000], "text"),
        ([400, 500, 600, 700], "text"),
        ([0, 0, 0, 0], "text"),
    ],
)
def test_the_format_is_guessed(lengths: list[int], guessed: str) -> None:
    assert guess_format(counted(lengths)) == guessed
