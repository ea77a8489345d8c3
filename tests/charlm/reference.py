"""What a completion means: one sequence at a time, a symbol at a time.

The engine serves many sequences at once and must give, for each, exactly what
``generate`` gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.charlm.decoder import Decoder, Row, bias_row
from app.charlm.kernels import stepping
from app.charlm.sampling import Sampling
from app.charlm.vocabulary import BOUNDARY, Ids


def generate(
    decoder: Decoder,
    prompt: Ids,
    sampling: Sampling,
    *,
    max_symbols: int,
    boundary: bool,
    choice: int = 0,
) -> Iterator[tuple[int, float]]:
    """Yield (id, logprob in nats) after a prompt of ids, which starts at the boundary.

    At most ``max_symbols``; where ``boundary`` is true the record may end, and
    the boundary then is the last id. ``choice`` tells choices of one seed apart.
    """
    state_BLS = decoder.initial_state(1)
    ids = np.append(BOUNDARY, prompt).astype(np.int32)
    decoder.read([ids[:-1]], state_BLS, [0])
    row = Row(
        slot=0,
        current=int(ids[-1]),
        sampling=sampling,
        counts=np.zeros(decoder.symbols if sampling.counts_matter else 0, dtype=np.int32),
        biases=bias_row(sampling, decoder.symbols),
        choice=choice,
        boundary=boundary,
    )
    for _ in range(max_symbols):
        writing = decoder.write([row], state_BLS, [1])
        yield int(writing.ids_BQ[0, 0]), float(writing.logprobs_BQ[0, 0])
        if writing.ids_BQ[0, 0] == BOUNDARY:
            return


def logits(
    decoder: Decoder, ids_B: NDArray[np.integer[Any]], state_BLS: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Read one symbol on every row; the logits [B, V] of the next."""
    rows = len(ids_B)
    scratch = decoder._scratch(rows)
    stepping.step(
        decoder._weights, scratch, decoder._kernel, decoder.hidden_size, ids_B.astype(np.int32),
        state_BLS, np.arange(rows), rows,
    )  # fmt: skip
    read: NDArray[np.float32] = scratch.logits_BV[:rows, : decoder.symbols]
    return read
