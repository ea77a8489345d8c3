"""How long the lines of a text are: how many there are of each length.

A text of N characters has at most the square root of 2N different lengths of lines, so this
is small whatever the text. Every figure is exact.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..charlm.corpus.format import CorpusFormat

_COUNTED: Final = 1 << 16  # lengths up to this are counted in an array, longer ones one by one


class LineLengths:
    """A count for each length, from lengths added in the order of the text."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._empty_at_end = 0

    def add(self, lengths: NDArray[np.int64]) -> None:
        """Count further lines."""
        filled = np.flatnonzero(lengths)
        if len(filled):
            self._empty_at_end = 0
        self._empty_at_end += len(lengths) - (int(filled[-1]) + 1 if len(filled) else 0)
        counted = np.bincount(lengths[lengths < _COUNTED])
        for length in np.flatnonzero(counted).tolist():
            self._counts[length] += int(counted[length])
        self._counts.update(lengths[lengths >= _COUNTED].tolist())

    @property
    def filled(self) -> int:
        """The number of lines that are not empty."""
        return self._counts.total() - self._counts[0]

    @property
    def empty_between(self) -> int:
        """The number of empty lines before the last line that is not empty."""
        return self._counts[0] - self._empty_at_end

    @property
    def longest(self) -> int:
        """The length of the longest line."""
        return max(self._counts, default=0)

    def quantile(self, share: float) -> float:
        """The quantile of the lengths of lines that are not empty, as ``np.quantile`` gives it.

        There must be such a line.
        """
        lengths = np.array(sorted(self._counts.keys() - {0}))
        ends = np.cumsum([self._counts[length] for length in lengths.tolist()])
        place = share * (self.filled - 1)
        below, above = (
            float(lengths[np.searchsorted(ends, rank, side="right")])
            for rank in (int(place), min(int(place) + 1, self.filled - 1))
        )
        part = place - int(place)
        # From the nearer end, as numpy does, so that rounding is the same.
        step = above - below
        return below + step * part if part < 0.5 else above - step * (1 - part)


def guess_format(lengths: LineLengths) -> CorpusFormat:
    """Lines, if the lines are short and hardly any between them is empty; otherwise text."""
    if lengths.filled < 3:
        return "text"
    short = lengths.quantile(0.5) <= 100 and lengths.quantile(0.95) <= 300
    return "lines" if short and lengths.empty_between <= 0.001 * lengths.filled else "text"
