"""Independent records as a corpus: split by hash, each record read from the zero state.

Takes one flat array of ids in which every line is followed by ``BOUNDARY`` (it may be
memory-mapped and is not copied) and gives windows. A seeded hash assigns each distinct
line to a split, so that duplicates share a split and adding lines moves no other line.
Shapes: B rows, T time steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidCorpus
from ..vocabulary import BOUNDARY, Ids
from .format import DEFAULT_FRACTION, CorpusFormat, check_fractions
from .hashing import LINE_END, Hashes, hashed_lines, mixed
from .windows import IGNORED, SplitName, Window, Windows

MINIMUM_RECORDS: Final = 3
_PIECE: Final = 1 << 20  # characters hashed at once
_MERGED_AT_ONCE: Final = 1 << 20  # lines
_PAD_TO: Final = 8  # keeps distinct shapes few: oneDNN caches a primitive for each


Places = NDArray[np.signedinteger[Any]]
"""Places, lengths or counts: 32 bits each unless the text is so long that they need 64."""


def check_records(distinct: int) -> None:
    """Raise InvalidCorpus if a text has too few distinct lines to be split."""
    if distinct < MINIMUM_RECORDS:
        raise InvalidCorpus(
            f"The text has {distinct} distinct lines; at least {MINIMUM_RECORDS} are "
            "needed for a line model. If this is running text, use the format 'text'."
        )


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
        distinct = _Distinct.of(ids, points_V)
        check_records(len(distinct.hashes))
        self.duplicates = int(distinct.counts.sum()) - len(distinct.hashes)
        self._starts, self._lengths = distinct.starts, distinct.lengths
        self._counts = distinct.counts
        draw = mixed(distinct.hashes ^ mixed(np.array([seed], dtype=np.uint64)))
        self._splits = _hash_split(draw, validation_fraction, test_fraction, distinct.counts.dtype)

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
        random = np.random.default_rng([seed, epoch])
        order = np.repeat(self._splits["train"], self._counts[self._splits["train"]])
        random.shuffle(order)
        rows = min(rows, len(order))
        # A plain sort would put the short records first in every epoch. The noise varies
        # each record's neighbours, the permutation of the batches their order.
        keys = random.random(len(order))
        keys += self._lengths[order]
        order = order[np.argsort(keys, kind="stable")]
        del keys
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
        starts: Places,
        lengths: Places,
        batches: Places,
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


class _Distinct(NamedTuple):
    """The distinct lines of a text, by ascending hash.

    For each its hash, the place and length of its first occurrence, and how often it occurs.
    """

    hashes: Hashes
    starts: Places
    lengths: Places
    counts: Places

    @classmethod
    def of(cls, ids: Ids, points_V: NDArray[np.uint32]) -> _Distinct:
        """Those of ``ids``; the memory grows with the distinct lines, not with all of them."""
        small = len(ids) < np.iinfo(np.int32).max
        kind: type[np.signedinteger[Any]] = np.int32 if small else np.int64
        empty = np.empty(0, dtype=kind)
        known = cls(np.empty(0, dtype=np.uint64), empty, empty, empty)
        new: list[_Distinct] = []
        waiting = 0
        for lines in hashed_lines(_value_pieces(ids, points_V)):
            starts, lengths = lines.starts.astype(kind), lines.lengths.astype(kind)
            new.append(cls(lines.hashes, starts, lengths, np.ones(len(starts), dtype=kind)))
            waiting += len(starts)
            # Merging costs as much as is known, so as much must wait for it.
            if waiting >= max(_MERGED_AT_ONCE, len(known.hashes)):
                known, new, waiting = _merged([known, _merged(new)]), [], 0
        return _merged([known, _merged(new)]) if new else known


def _merged(parts: Sequence[_Distinct]) -> _Distinct:
    """Lines of several stretches of a text, in its order, each line once."""
    hashes, starts, lengths, counts = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(hashes, kind="stable")  # of the same lines, the first comes first
    hashes = hashes[order]
    firsts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
    kept = order[firsts]
    counts = np.add.reduceat(counts[order], firsts) if len(firsts) else counts
    return _Distinct(hashes[firsts], starts[kept], lengths[kept], counts)


def _value_pieces(ids: Ids, points_V: NDArray[np.uint32]) -> Iterator[Hashes]:
    """The values of a text for its hash, in pieces."""
    values_V = points_V.astype(np.uint64) + np.uint64(1)
    values_V[BOUNDARY] = LINE_END
    for first in range(0, len(ids), _PIECE):
        yield values_V[np.asarray(ids[first : first + _PIECE])]


def _hash_split(
    draw: Hashes, validation: float, test: float, kind: np.dtype[Any]
) -> dict[SplitName, Places]:
    """Split records by their hash, in hash order, so that any prefix is a fair sample.

    A split that would be empty in a tiny corpus takes the nearest record. ``kind`` is the type
    of the records' numbers.
    """
    order = np.argsort(draw, kind="stable").astype(kind)
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
