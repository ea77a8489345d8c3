"""What a sequence has produced, in compact arrays: ids, logprobs, ranks, alternatives.

A number takes 4 or 8 bytes and not the 30 of a Python object, so what waits for a slow
reader stays small and can be counted (``Piece.numbers``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Final, overload

from numpy.typing import NDArray

NUMBER_BYTES: Final = 12
"""Of a symbol or an alternative: its id or rank (4) and its logprob (8)."""

PIECE_NUMBERS: Final = 64
"""What an empty piece costs, in numbers: its object and seven arrays."""

Top = Sequence[tuple[int, float]]
"""The likeliest symbols at one position: ids and logprobs, the likeliest first."""


class FinishReason(StrEnum):
    """Why a sequence ended, as the OpenAI protocol spells it."""

    STOP = "stop"  #: The boundary was drawn or a stop string was completed.
    LENGTH = "length"  #: The sequence has the maximum number of symbols.


def ints(values: Iterable[int] = ()) -> array[int]:
    """An array of 32-bit integers."""
    return array("i", values)


def floats(values: Iterable[float] = ()) -> array[float]:
    """An array of 64-bit floats."""
    return array("d", values)


class Tops(Sequence[Top]):
    """The ``width`` likeliest symbols at each of some consecutive positions.

    An id below 0 fills up a position that has fewer. With ``width`` 0 there are no positions.
    """

    def __init__(self, width: int = 0, ids: Iterable[int] = (), logprobs: Iterable[float] = ()):
        self.width = width
        self._ids, self._logprobs = ints(ids), floats(logprobs)

    @classmethod
    def of_arrays(cls, ids_TN: NDArray[Any], logprobs_TN: NDArray[Any], width: int) -> Tops:
        """The first ``width`` columns of two arrays [T, N]."""
        tops = cls(width)
        if width:
            tops._ids.frombytes(ids_TN[:, :width].astype("i4").tobytes())
            tops._logprobs.frombytes(logprobs_TN[:, :width].astype("f8").tobytes())
        return tops

    def __len__(self) -> int:
        return len(self._ids) // self.width if self.width else 0

    @overload
    def __getitem__(self, place: int) -> Top: ...
    @overload
    def __getitem__(self, place: slice) -> Tops: ...
    def __getitem__(self, place: int | slice) -> Top | Tops:
        width = self.width
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            assert step == 1
            cut = slice(start * width, max(start, stop) * width)
            return Tops(width, self._ids[cut], self._logprobs[cut])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        first = place % len(self) * width
        cut = slice(first, first + width)
        pairs = zip(self._ids[cut], self._logprobs[cut], strict=True)
        return [(symbol, logprob) for symbol, logprob in pairs if symbol >= 0]

    def __iter__(self) -> Iterator[Top]:
        pairs = zip(self._ids, self._logprobs, strict=True)
        for _ in range(len(self)):
            yield [pair for pair in islice(pairs, self.width) if pair[0] >= 0]

    def extend(self, later: Tops) -> None:
        """Append the positions of ``later``."""
        if later.width:
            assert self.width in (0, later.width)
            self.width = later.width
            self._ids += later._ids
            self._logprobs += later._logprobs

    def drop(self, count: int) -> None:
        """Remove the first ``count`` positions."""
        del self._ids[: count * self.width], self._logprobs[: count * self.width]

    def padded(self, count: int) -> Iterator[Top]:
        """One entry for each of ``count`` positions: empty ones if there are no alternatives."""
        return iter(self) if self.width else (() for _ in range(count))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tops) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it can be extended


@dataclass
class Piece:
    """New results of one sequence; pieces of one sequence can be joined.

    ``read_*`` belong to the prompt (scored requests only), ``ids``, ``logprobs`` and
    ``tops`` to the completion. ``finish`` comes with the last piece; ``cached`` is the
    number of prompt symbols that were not read thanks to a cached state.
    """

    index: int
    ids: array[int] = field(default_factory=ints)
    logprobs: array[float] = field(default_factory=floats)
    tops: Tops = field(default_factory=Tops)
    read_logprobs: array[float] = field(default_factory=floats)
    read_ranks: array[int] = field(default_factory=ints)
    read_tops: Tops = field(default_factory=Tops)
    finish: FinishReason | None = None
    cached: int = 0

    @property
    def numbers(self) -> int:
        """Its size: about this many times ``NUMBER_BYTES``."""
        drawn = len(self.ids) * (1 + self.tops.width)
        return drawn + len(self.read_ranks) * (1 + self.read_tops.width)

    def with_reading(self, other: Piece) -> Piece:
        """This piece with another sequence's reading of the same prompt."""
        return replace(
            self,
            read_logprobs=other.read_logprobs[:],
            read_ranks=other.read_ranks[:],
            read_tops=other.read_tops[:],
        )

    def join(self, later: Piece) -> None:
        """Append ``later`` to this piece."""
        assert self.index == later.index
        self.ids += later.ids
        self.logprobs += later.logprobs
        self.tops.extend(later.tops)
        self.read_logprobs += later.read_logprobs
        self.read_ranks += later.read_ranks
        self.read_tops.extend(later.read_tops)
        self.finish = later.finish
        self.cached = later.cached
