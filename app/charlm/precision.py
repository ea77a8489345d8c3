"""Choose between int8 and float32 for serving: int8, unless its loss is over 0.1 % higher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from .decoder import Decoder
from .network import CharNetwork
from .number_format import PRECISIONS, Precision
from .scoring import batches, score
from .vocabulary import Ids

TOLERANCE: Final = 0.001
"""The largest relative loss in nats at which int8 is still chosen."""

_SYMBOLS: Final = 20_000  # compared by default
_PIECE: Final = 1_000  # symbols compared of one record, at most


class Comparison(NamedTuple):
    """The chosen precision, and the relative increase in nats from float32 to int8."""

    precision: Precision
    int8_loss: float | None  # None where int8 is not possible


def compare_precisions(
    network: CharNetwork, records: Iterable[Ids], *, closed: bool, symbols: int = _SYMBOLS
) -> Comparison:
    """Score about ``symbols`` symbols of held-out records in both precisions and choose one.

    Chooses int8 if its nats exceed float32's by at most 0.1 %.
    """
    if not network.config.descriptor.bounded:
        return Comparison("float32", None)
    sample: list[Ids] = []
    for record in records:
        sample.append(record[:_PIECE])
        symbols -= len(sample[-1]) + 1
        if symbols <= 0:
            break
    exact, rounded = (
        _nats(Decoder.from_network(network, precision), sample, closed=closed)
        for precision in PRECISIONS
    )
    loss = (rounded - exact) / exact if exact else 0.0
    return Comparison("int8" if loss <= TOLERANCE else "float32", loss)


def _nats(decoder: Decoder, records: Iterable[Ids], *, closed: bool) -> float:
    return sum(
        each.nats for batch in batches(records) for each in score(decoder, batch, closed=closed)
    )
