"""Look inside a network: what its units hold after each symbol, and what it expects next.

Takes ids and a packed network, so the numbers are those of serving. Knows no texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .decoder import Decoder
from .vocabulary import BOUNDARY, Ids

Kind = Literal["hidden", "cell"]
"""The hidden state h_t, which the next layer reads; or an LSTM's cell state c_t."""


@dataclass(frozen=True)
class Inspection:
    """What was seen after each of T symbols: the boundary that begins the text, then its ids.

    ``values_TU`` are the chosen units; ``ids_TN`` the N likeliest next symbols (−1 where the
    vocabulary has fewer) and ``logprobs_TN`` their logprobs in nats.
    """

    values_TU: NDArray[np.float32]
    ids_TN: NDArray[np.int32]
    logprobs_TN: NDArray[np.float64]


def inspect(
    decoder: Decoder,
    ids: Ids,
    *,
    layer: int,
    kind: Kind,
    units: NDArray[np.integer[Any]],
    top: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Inspection | None:
    """Read ``ids`` one by one and note the state of one layer after each.

    ``layer`` counts from 0; ``kind`` "cell" needs a network whose state has one. None if it was
    ``stopped`` before the end.
    """
    symbols = np.append(np.int32(BOUNDARY), ids).astype(np.int32)
    count, size = len(symbols), decoder.hidden_size
    columns = units + (size if kind == "cell" else 0)
    state_BLS = decoder.initial_state(1)
    values = np.empty((count, len(units)), dtype=np.float32)
    tops = np.empty((count, top), dtype=np.int32)
    logprobs = np.empty((count, top))
    goal = [symbols[:1]]  # any: only the alternatives are of interest
    for place in range(count):
        if stopped():
            return None
        step = [symbols[place : place + 1]]
        reading = decoder.read(step, state_BLS, [0], goal, top=top)
        values[place] = state_BLS[0, layer, columns]
        tops[place], logprobs[place] = reading.top_ids_BTN[0, 0], reading.top_logprobs_BTN[0, 0]
    return Inspection(values, tops, logprobs)
