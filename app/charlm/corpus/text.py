"""Running text as a corpus: contiguous splits, rows that carry their state.

Takes one flat array of ids (which may be memory-mapped and is not copied) and gives
windows. Shapes: B rows, T time steps.
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

RESET_PROBABILITY: Final = 0.02
"""The probability that a row resets its state at the start of a window.

A served network starts from the zero state, which a network trained on carried state
alone has hardly ever seen: 2.85 nats against 1.79 after 45 s of training.
"""

MINIMUM_CHARACTERS: Final = 20
_WARM_UP: Final = 512  # characters that an evaluation row reads before its share
_SEARCHED_AT_ONCE: Final = 1 << 16  # characters
_SHIFTED_FROM: Final = 8  # with this many windows per row, the start shifts by up to one window


def check_characters(total: int) -> None:
    """Raise InvalidCorpus if a text has too few characters to be split."""
    if total < MINIMUM_CHARACTERS:
        raise InvalidCorpus(
            f"The text has {total} characters; at least {MINIMUM_CHARACTERS} are needed. "
            "A useful model needs a few thousand."
        )


class TextCorpus:
    """One running text, split train | validation | test from front to back.

    ``ids`` is the whole text [N]; ``newline_id`` is the id that ends a line (for
    ``records``), None if the text has none. Raises InvalidCorpus if the text is too short
    to split, InvalidInput for fractions out of bounds.
    """

    format: Final[CorpusFormat] = "text"

    def __init__(
        self,
        ids: Ids,
        *,
        newline_id: int | None = None,
        validation_fraction: float = DEFAULT_FRACTION,
        test_fraction: float = DEFAULT_FRACTION,
    ) -> None:
        check_fractions(validation_fraction, test_fraction)
        total = len(ids)
        check_characters(total)
        held_out = [
            max(1, round(total * fraction)) if fraction else 0
            for fraction in (validation_fraction, test_fraction)
        ]
        ends = np.cumsum([total - sum(held_out), *held_out])
        self._newline_id = newline_id
        self._splits: dict[SplitName, Ids] = {
            "train": ids[: ends[0]],
            "validation": ids[ends[0] : ends[1]],
            "test": ids[ends[1] :],
        }

    def characters(self, split: SplitName) -> int:
        """The number of symbols predicted in one pass over a split."""
        return len(self._splits[split])

    def training_windows(self, epoch: int, rows: int, window: int, seed: int) -> Windows:
        """One pass over the training split, fully determined by (seed, epoch).

        A text too short for these rows and windows gets fewer rows or shorter windows.
        """
        return _TextWindows(self._splits["train"], epoch, rows, window, seed)

    def evaluation_windows(
        self, split: SplitName, rows: int, window: int, limit: int | None = None
    ) -> Iterator[Window]:
        """A stateful pass over a split (its first ``limit`` characters), each counted once.

        ``rows`` rows read one share of the split each. A row first reads the boundary and
        at least 512 characters before its share, uncounted, so that in practice its state
        equals that of one single pass. (Training never starts a row on a character instead.
        A network started that way may not recover for the rest of the text: 22 bits per
        character against 7 on Tang poems.)
        """
        ids = self._splits[split][:limit]
        rows = max(1, min(rows, len(ids) // (2 * _WARM_UP)))
        share = -(-len(ids) // rows)
        warm = -(-_WARM_UP // window) if rows > 1 else 0
        starts_B1 = (np.arange(rows) * share)[:, None]
        for index in range(warm + -(-share // window)):
            places_BT = starts_B1 + (index - warm) * window + np.arange(window)
            counted = (places_BT >= starts_B1) & (places_BT < starts_B1 + share)
            counted &= places_BT < len(ids)
            inputs_BT = _take(ids, places_BT - 1)
            targets_BT = np.where(counted, _take(ids, places_BT), IGNORED)
            reset_B = (places_BT[:, 0] == 0) | (index == 0)
            inputs_BT[reset_B, 0] = BOUNDARY
            yield Window(inputs_BT, targets_BT, reset_B)

    def beginning(self, split: SplitName, count: int) -> Ids:
        """The first ``count`` ids of a split."""
        return self._splits[split][:count]

    def records(self, split: SplitName) -> Iterator[Ids]:
        """The non-empty lines of a split, without their newlines."""
        ids = self._splits[split]
        start = 0  # of the record
        for first in range(0, len(ids), _SEARCHED_AT_ONCE):
            block = ids[first : first + _SEARCHED_AT_ONCE]
            for end in (first + np.flatnonzero(block == self._newline_id)).tolist():
                if end > start:
                    yield ids[start:end]
                start = end + 1
        if len(ids) > start:
            yield ids[start:]


def _take(ids: Ids, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """``ids[places]``, with the boundary before the first and after the last id."""
    inside = (places >= 0) & (places < len(ids))
    return np.where(inside, ids[np.where(inside, places, 0)], BOUNDARY).astype(np.int64)


class _TextWindows(Windows):
    def __init__(self, ids: Ids, epoch: int, rows: int, window: int, seed: int) -> None:
        self._ids = ids
        self._window_size = max(1, min(window, len(ids) - 1))
        self._rows = max(1, min(rows, (len(ids) - 1) // self._window_size))
        self._random = np.random.SeedSequence([seed, epoch])
        share = (len(ids) - 1) // self._rows
        # Windows begin at other places in every epoch, so that the network does not
        # train on the same cuts again and again.
        spare = share % self._window_size
        if share >= _SHIFTED_FROM * window:
            spare += self._window_size
        shift = int(np.random.default_rng(self._random).integers(spare + 1))
        self._starts_B1 = (np.arange(self._rows) * share + shift)[:, None]
        self._count = (share - shift) // self._window_size

    def __len__(self) -> int:
        return self._count

    def _window(self, index: int) -> Window:
        chance = np.random.default_rng([*self._random.generate_state(2), index])
        reset_B = chance.random(self._rows) < RESET_PROBABILITY
        if index == 0:
            reset_B[:] = True
        places = self._starts_B1 + index * self._window_size + np.arange(self._window_size)
        inputs_BT = self._ids[places].astype(np.int64)
        inputs_BT[reset_B, 0] = BOUNDARY
        return Window(inputs_BT, self._ids[places + 1].astype(np.int64), reset_B)
