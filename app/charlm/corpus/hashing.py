"""Hashes of the lines of a text, computed piece by piece, in memory that no text can raise.

Takes a text as arrays of *values*, one a character: its code point plus one, or 0 where a line
ends. Gives where the lines are that are not empty, and a 64-bit hash of each, which depends on
nothing but its characters. Empty lines cost nothing, and a line may span any number of pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LINE_END: Final = 0
"""The value that ends a line."""

Hashes = NDArray[np.uint64]

_BLOCK: Final = 1 << 18  # values at once; about 30 bytes each, so that all fits in a cache
_BASE: Final = 0x9E3779B97F4A7C15  # of the polynomial: 2^64 / golden ratio, odd
_WORD: Final = 1 << 64


class Lines(NamedTuple):
    """Lines in the order of the text: first character, number of characters, hash."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    hashes: Hashes


def values_of(points: NDArray[np.uint32], line_end: int) -> Hashes:
    """The values of code points, of which ``line_end`` ends a line."""
    values = points.astype(np.uint64)
    values += np.uint64(1)
    values[points == line_end] = LINE_END
    return values


def hashed_lines(pieces: Iterable[Hashes]) -> Iterator[Lines]:
    """The lines of a text that are not empty, with a polynomial hash of each, mixed.

    Among ten million lines, two different ones share a hash with probability 3e-6. One would
    then be taken for a duplicate of the other.
    """
    # The sum over a line of value[i] * BASE^(i+1), modulo 2^64. In a block the powers run on
    # over all lines; what that multiplies a line by is divided out again, as BASE is odd.
    powers = np.full(_BLOCK, _BASE, dtype=np.uint64).cumprod()
    inverses = np.full(_BLOCK + 1, pow(_BASE, -1, _WORD), dtype=np.uint64)
    inverses[0] = 1
    inverses = inverses.cumprod()
    place, open_length, open_sum = 0, 0, 0  # the last two of the line that is not at its end yet
    for piece in pieces:
        for first in range(0, len(piece), _BLOCK):
            block = piece[first : first + _BLOCK]
            ends = np.flatnonzero(block == LINE_END)
            starts = np.append(0, ends + 1)  # the last line is left open, perhaps empty
            sums = np.add.reduceat(np.append(block * powers[: len(block)], np.uint64(0)), starts)
            sums *= inverses[starts]
            lengths = np.append(ends, len(block)) - starts
            starts += place
            # What the earlier blocks have of the first line.
            sums[0] = (open_sum + int(sums[0]) * pow(_BASE, open_length, _WORD)) % _WORD
            lengths[0] += open_length
            starts[0] -= open_length
            place += len(block)
            open_length, open_sum = int(lengths[-1]), int(sums[-1])
            filled = lengths[:-1] > 0
            yield Lines(starts[:-1][filled], lengths[:-1][filled], mixed(sums[:-1][filled]))
    if open_length:
        start, length = np.array([place - open_length]), np.array([open_length])
        yield Lines(start, length, mixed(np.array([open_sum], dtype=np.uint64)))


def mixed(values: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
