"""Independent records as a corpus: split by hash, each record read from the zero state.

Takes one flat array of ids in which every line is followed by ``BOUNDARY`` (it may be
memory-mapped and is not copied) and gives windows. A seeded hash assigns each distinct
line to a split, so that duplicates share a split and adding lines moves no other line.
Shapes: B rows, T time steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidCorpus
from ..vocabulary import BOUNDARY, Ids
from .format import DEFAULT_FRACTION, CorpusFormat, check_fractions
from .windows import IGNORED, SplitName, Window, Windows

MINIMUM_RECORDS: Final = 3
_PAD_TO: Final = 8  # keeps distinct shapes few: oneDNN caches a primitive for each


class LineCorpus:
    """Independent records: ``ids`` [N] holds the lines, each followed by ``BOUNDARY``.

    ``points_V`` gives each id's code point, so that a line's hash does not depend on the
    vocabulary. Empty lines do not count. A line's number of occurrences is its weight in
    training; validation and test hold it once. Raises InvalidCorpus below three distinct
    lines, InvalidInput for fractions out of bounds.
    """

    format: Final[CorpusFormat] = "lines"

    def __init__(
        self,
        ids: Ids,
        points_V: NDArray[np.uint32],
        *,
        seed: int = 1,
        validation_fraction: float = DEFAULT_FRACTION,
        test_fraction: float = DEFAULT_FRACTION,
    ) -> None:
        check_fractions(validation_fraction, test_fraction)
        self._ids = ids
        starts, lengths = _line_places(ids)
        hashes = _line_hashes(ids, starts, lengths, points_V)
        distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        if len(distinct) < MINIMUM_RECORDS:
            raise InvalidCorpus(
                f"The text has {len(distinct)} distinct lines; at least {MINIMUM_RECORDS} are "
                "needed for a line model. If this is running text, use the format 'text'."
            )
        self.duplicates = int(counts.sum() - len(distinct))
        self._starts, self._lengths = starts[first], lengths[first]
        draw = _mixed(distinct ^ _mixed(np.array([seed], dtype=np.uint64)))
        self._counts = counts
        self._splits = _hash_split(draw, validation_fraction, test_fraction)

    def characters(self, split: SplitName) -> int:
        """The number of symbols predicted in one pass over a split.

        Includes the closing boundary of each record. In training a record counts as often
        as it occurs.
        """
        chosen = self._splits[split]
        weights = self._counts[chosen] if split == "train" else 1
        return int(((self._lengths[chosen] + 1) * weights).sum())

    def training_windows(self, epoch: int, rows: int, window: int, seed: int) -> Windows:
        """One pass over the training records, fully determined by (seed, epoch).

        Records of similar length share a batch. A record longer than ``window`` takes
        several windows, with its state carried.
        """
        chosen = np.repeat(self._splits["train"], self._counts[self._splits["train"]])
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(chosen)
        rows = min(rows, len(order))
        # A plain sort would put the short records first in every epoch. The noise varies
        # each record's neighbours, the permutation of the batches their order.
        keys = self._lengths[order] + random.random(len(order))
        order = order[np.argsort(keys, kind="stable")]
        order = np.append(order, order[: -len(order) % rows])
        batches = random.permutation(order.reshape(-1, rows))
        return _LineWindows(self._ids, self._starts, self._lengths, batches, window)

    def evaluation_windows(
        self, split: SplitName, rows: int, window: int, limit: int | None = None
    ) -> Iterator[Window]:
        """Every distinct record of a split once, from the zero state, with its closing boundary.

        ``limit`` bounds the characters: only the first records in hash order are read.
        """
        chosen = self._splits[split]
        if limit is not None:
            chosen = chosen[: max(1, int(np.searchsorted(self._lengths[chosen].cumsum(), limit)))]
        order = chosen[np.argsort(self._lengths[chosen], kind="stable")]
        rows = max(1, min(rows, len(order)))
        padded = np.append(order, np.full(-len(order) % rows, -1, dtype=order.dtype))
        batches = padded.reshape(-1, rows)
        return iter(_LineWindows(self._ids, self._starts, self._lengths, batches, window))

    def records(self, split: SplitName) -> Iterator[Ids]:
        """The distinct records of a split, without boundaries."""
        for record in self._splits[split]:
            start = self._starts[record]
            yield self._ids[start : start + self._lengths[record]]


class _LineWindows(Windows):
    """``batches`` [n, B] holds record indices; -1 pads the last batch and counts nothing."""

    def __init__(
        self,
        ids: Ids,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        batches: NDArray[np.int64],
        window: int,
    ) -> None:
        self._ids, self._starts, self._lengths = ids, starts, lengths
        self._batches, self._window_size = batches, window
        longest = lengths[batches].max(axis=1) + 1
        self._ends = (-(-longest // window)).cumsum()
        self._longest = longest

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _window(self, index: int) -> Window:
        batch = int(np.searchsorted(self._ends, index, side="right"))
        piece = index - (int(self._ends[batch - 1]) if batch else 0)
        records = self._batches[batch]
        width = min(self._window_size, -(-int(self._longest[batch]) // _PAD_TO) * _PAD_TO)
        places_T = piece * self._window_size + np.arange(width)
        lengths_B1 = np.where(records < 0, -1, self._lengths[records])[:, None]
        flat = self._starts[records][:, None] + places_T
        targets_BT = np.where(
            places_T < lengths_B1, self._ids[np.minimum(flat, len(self._ids) - 1)], BOUNDARY
        ).astype(np.int64)
        targets_BT[places_T > lengths_B1] = IGNORED
        inputs_BT = np.where(
            (places_T > 0) & (places_T <= lengths_B1),
            self._ids[np.clip(flat - 1, 0, len(self._ids) - 1)],
            BOUNDARY,
        ).astype(np.int64)
        return Window(inputs_BT, targets_BT, np.full(len(records), piece == 0))


def _line_places(ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths of the non-empty lines."""
    ends = np.flatnonzero(ids == BOUNDARY)
    if len(ids) and (not len(ends) or ends[-1] != len(ids) - 1):
        ends = np.append(ends, len(ids))
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    full = ends > starts
    return starts[full], (ends - starts)[full]


_HASHED_AT_ONCE: Final = 1 << 22  # characters
_BASE: Final = 0x9E3779B97F4A7C15  # of the polynomial: 2^64 / golden ratio, odd


def _line_hashes(
    ids: Ids,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    points_V: NDArray[np.uint32],
) -> NDArray[np.uint64]:
    """A 64-bit polynomial hash of each line's code points, mixed (splitmix64).

    Among ten million lines, two different ones share a hash with probability 3e-6. One
    would then be taken for a duplicate of the other.
    """
    hashes = np.zeros(len(starts), dtype=np.uint64)
    powers = np.full(int(lengths.max(initial=0)), _BASE, dtype=np.uint64).cumprod()
    first = 0
    while first < len(starts):
        until = int(np.searchsorted(starts, starts[first] + _HASHED_AT_ONCE))
        last = max(first + 1, until)
        begin, end = int(starts[first]), int(starts[last - 1] + lengths[last - 1])
        points = points_V[np.asarray(ids[begin:end])].astype(np.uint64) + np.uint64(1)
        length_of = lengths[first:last]
        inside = np.repeat(starts[first:last] - begin, length_of) + _ramp(length_of)
        terms = points[inside] * powers[_ramp(length_of)]
        begins = np.append(0, length_of.cumsum()[:-1])
        hashes[first:last] = np.add.reduceat(terms, begins)
        first = last
    return _mixed(hashes)


def _ramp(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, …, n-1 for every n of ``lengths``, concatenated."""
    ends = lengths.cumsum()
    ramp: NDArray[np.int64] = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
    return ramp


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_split(
    draw: NDArray[np.uint64], validation: float, test: float
) -> dict[SplitName, NDArray[np.int64]]:
    """Split records by their hash, in hash order, so that any prefix is a fair sample.

    A split that would be empty in a tiny corpus takes the nearest record.
    """
    order = np.argsort(draw, kind="stable")
    uniform = draw[order] / 2.0**64
    low = int(np.searchsorted(uniform, validation))
    high = int(np.searchsorted(uniform, validation + test))
    low = min(max(1, low), len(order) - 2)
    high = min(max(low + (1 if test else 0), high), len(order) - 1)
    return {
        "validation": order[:low],
        "test": order[low:high],
        "train": order[high:],
    }
