"""How unusual a text is: logprobs, their sums, and a percentile among held-out records.

A record is read from the boundary on. In a line model its closing boundary is predicted
too, so that the probabilities of all records sum to one.

All logprobs are natural logarithms in float64; bits per character = nats / (n ln 2).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .decoder import Decoder
from .measures import perplexity
from .vocabulary import BOUNDARY, Ids

_ROWS_AT_ONCE: Final = 64
_CHUNK: Final = 512  # symbols of each record per call of the decoder
_QUANTILES: Final = 1001  # of a calibration: tenths of a percent


@dataclass(frozen=True)
class Score:
    """The logprob and rank (1 is the likeliest) of every predicted symbol."""

    logprobs: NDArray[np.float64]
    ranks: NDArray[np.int32]

    @property
    def symbols(self) -> int:
        """The number of predicted symbols, including a closing boundary."""
        return len(self.logprobs)

    @property
    def nats(self) -> float:
        """−ln p of the whole record."""
        return -math.fsum(self.logprobs)

    @property
    def bits_per_character(self) -> float:
        """nats / (n ln 2); 0 for an empty record."""
        return self.nats / (self.symbols * math.log(2)) if self.symbols else 0.0

    @property
    def perplexity(self) -> float:
        """exp(nats / n); 1 for an empty record."""
        return perplexity(self.nats / self.symbols) if self.symbols else 1.0


def score(decoder: Decoder, records: Sequence[Ids], *, closed: bool) -> list[Score]:
    """Score records in parallel rows; ``closed`` also scores the closing boundary.

    Neither the size of the chunks nor the other records change any bit of a score.
    """
    texts = [np.append(record, BOUNDARY) if closed else record for record in records]
    inputs = [np.append(BOUNDARY, record)[: len(text)] for record, text in zip(records, texts)]  # noqa: B905
    pieces: list[list[tuple[NDArray[np.float64], NDArray[np.int32]]]] = [[] for _ in records]
    state_BLS = decoder.initial_state(len(records))
    for start in range(0, max(map(len, texts), default=0), _CHUNK):
        live = [b for b, text in enumerate(texts) if len(text) > start]
        reading = decoder.read(
            [inputs[b][start : start + _CHUNK] for b in live],
            state_BLS,
            live,
            [texts[b][start : start + _CHUNK] for b in live],
        )
        for row, b in enumerate(live):
            count = min(_CHUNK, len(texts[b]) - start)
            pieces[b].append((reading.logprobs_BT[row, :count], reading.ranks_BT[row, :count]))
    empty = (np.zeros(0), np.zeros(0, dtype=np.int32))
    return [
        Score(
            np.concatenate([empty[0], *(p[0] for p in parts)]),
            np.concatenate([empty[1], *(p[1] for p in parts)]),
        )
        for parts in pieces
    ]


def batches(records: Iterable[Ids]) -> Iterator[list[Ids]]:
    """Records in lists of ``_ROWS_AT_ONCE``; the last may be shorter."""
    source = iter(records)
    while batch := list(islice(source, _ROWS_AT_ONCE)):
        yield batch


@dataclass(frozen=True)
class Calibration:
    """Quantiles of bits per character over held-out records, ascending.

    They turn a score into a percentile among real records.
    """

    quantiles: tuple[float, ...]

    def percentile(self, bits_per_character: float) -> float:
        """The percentage of held-out records with fewer bits per character; 0..100."""
        last = len(self.quantiles) - 1
        place = bisect_left(self.quantiles, bits_per_character)
        if place == 0 or place > last:
            return 0.0 if place == 0 else 100.0
        low, high = self.quantiles[place - 1], self.quantiles[place]
        within = (bits_per_character - low) / (high - low)
        return 100.0 * (place - 1 + within) / last


def calibrate(decoder: Decoder, records: Iterable[Ids], *, closed: bool) -> Calibration | None:
    """Calibrate on held-out records; None if all of them are empty."""
    bits = [
        each.bits_per_character
        for batch in batches(record for record in records if len(record))
        for each in score(decoder, batch, closed=closed)
    ]
    if not bits:
        return None
    count = min(_QUANTILES, max(2, len(bits)))
    return Calibration(tuple(np.quantile(bits, np.linspace(0, 1, count)).tolist()))
