"""The compiled inner loops of inference: read given symbols, or write drawn symbols.

One call advances many rows by many steps without returning to Python and without the
interpreter lock. Knows nothing of text or of how weights are packed; ``decoder.py`` is
the only caller.

Shapes: B rows, T time steps, Q drawn symbols, V symbols, L layers, S state
width, H hidden (P when padded to 16), G gates, N = G·P padded to 64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..vocabulary import BOUNDARY
from .cells import update
from .products import load_input, product
from .sampling import choose, likeliest, log_total, uniform
from .vectors import compiled


class Weights(NamedTuple):
    """All weights of a network, stacked by layer, as compiled code reads them."""

    table_VN: Any  # layer 0: W_ih · embedding + biases
    hidden: tuple[Any, Any, Any, Any]  # [L, …] panels, scales, offsets, biases
    input: tuple[Any, Any, Any, Any]  # [L−1, …], the layers above the first
    output: tuple[Any, Any, Any, Any]


class Scratch(NamedTuple):
    """Arrays for the intermediate results of one call.

    One row of them per row of the call; for reading, one per symbol of a few steps.
    """

    below_BP: Any
    own_BP: Any
    from_input_BN: Any
    from_hidden_BN: Any
    logits_BV: Any
    probabilities_V: Any
    configuration: Any  # ``amx.CONFIGURATION``


@compiled
def step(
    weights: Any, scratch: Any, kernel: int, units: int, chars: Any, state: Any, slots: Any,
    rows: int,
) -> None:  # fmt: skip
    """Read one symbol on each of the first ``rows`` rows; logits go to ``scratch``."""
    width = scratch.own_BP.shape[1]
    table = weights.table_VN
    panels, scales, offsets, biases = weights.hidden
    upper, upper_scales, upper_offsets, upper_biases = weights.input
    for layer in range(state.shape[1]):
        for row in range(rows):
            load_input(state[slots[row], layer], scratch.own_BP[row], units)
        product(scratch.own_BP, panels[layer], scales[layer], offsets[layer], biases[layer],
                scratch.from_hidden_BN, rows, scratch.configuration)  # fmt: skip
        if layer > 0:
            product(scratch.below_BP, upper[layer - 1], upper_scales[layer - 1],
                    upper_offsets[layer - 1], upper_biases[layer - 1],
                    scratch.from_input_BN, rows, scratch.configuration)  # fmt: skip
        for row in range(rows):
            x = table[chars[row]] if layer == 0 else scratch.from_input_BN[row]
            update(kernel, x, scratch.from_hidden_BN[row], state[slots[row], layer], units, width)
            load_input(state[slots[row], layer], scratch.below_BP[row], units)
    out_panels, out_scales, out_offsets, out_biases = weights.output
    product(scratch.below_BP, out_panels, out_scales, out_offsets, out_biases, scratch.logits_BV,
            rows, scratch.configuration)  # fmt: skip


@compiled
def _read_steps(
    weights: Any, scratch: Any, kernel: int, units: int, ids: Any, first: int, starts: Any,
    state: Any, slots: Any,
) -> None:  # fmt: skip
    """Read the steps first, first + 1 … of ``ids`` [B, T], layer by layer.

    The symbol of row b at step first + s has the place starts[s] + b in ``below_BP``,
    where the top layer's hidden state is left as the input of the output layer. Reading
    all steps of a layer at once keeps its weights in the nearest cache and makes the
    contribution of the layer below one product for all places.
    """
    width = scratch.own_BP.shape[1]
    table = weights.table_VN
    panels, scales, offsets, biases = weights.hidden
    upper, upper_scales, upper_offsets, upper_biases = weights.input
    steps = len(starts) - 1
    for layer in range(state.shape[1]):
        if layer > 0:
            product(scratch.below_BP, upper[layer - 1], upper_scales[layer - 1],
                    upper_offsets[layer - 1], upper_biases[layer - 1],
                    scratch.from_input_BN, starts[steps], scratch.configuration)  # fmt: skip
        for s in range(steps):
            rows = starts[s + 1] - starts[s]
            for row in range(rows):
                load_input(state[slots[row], layer], scratch.own_BP[row], units)
            product(scratch.own_BP, panels[layer], scales[layer], offsets[layer], biases[layer],
                    scratch.from_hidden_BN, rows, scratch.configuration)  # fmt: skip
            for row in range(rows):
                place = starts[s] + row
                x = table[ids[row, first + s]] if layer == 0 else scratch.from_input_BN[place]
                update(
                    kernel, x, scratch.from_hidden_BN[row], state[slots[row], layer], units, width
                )
                load_input(state[slots[row], layer], scratch.below_BP[place], units)


@compiled
def _judge(
    logits: Any, symbols: int, target: int, scratch: Any, logprobs: Any, ranks: Any, tops: Any,
    top_logprobs: Any,
) -> None:  # fmt: skip
    """Store the logprob and rank of ``target`` in arrays [1], the likeliest symbols in [N]."""
    own = logits[target]
    total = log_total(logits, symbols, scratch.probabilities_V)
    logprobs[0] = np.float64(own) - total
    likeliest(logits, symbols, total, tops, top_logprobs)
    rank = 1
    for v in range(symbols):
        rank += logits[v] > own
    ranks[0] = rank


@compiled
def read(
    weights: Any, scratch: Any, kernel: int, units: int, symbols: int, ids: Any, lengths: Any,
    state: Any, slots: Any, targets: Any, logprobs: Any, ranks: Any, tops: Any, top_logprobs: Any,
) -> None:  # fmt: skip
    """Read the first lengths[b] of ``ids`` [B, T] on each row b; lengths fall with b.

    If targets [B, T] are given (else [0, 0]), fills in their logprobs and ranks, and the N
    likeliest symbols at each position, tops [B, T, N].
    """
    rows, longest = len(lengths), ids.shape[1]
    out_panels, out_scales, out_offsets, out_biases = weights.output
    first = 0
    while first < longest:
        while rows > 0 and lengths[rows - 1] <= first:
            rows -= 1
        if rows == 0:
            break
        steps = min(max(1, len(scratch.below_BP) // rows), longest - first)
        starts = np.zeros(steps + 1, dtype=np.int64)
        live = rows
        for s in range(steps):
            while live > 0 and lengths[live - 1] <= first + s:
                live -= 1
            starts[s + 1] = starts[s] + live
        _read_steps(weights, scratch, kernel, units, ids, first, starts, state, slots)
        if len(targets) > 0:
            product(scratch.below_BP, out_panels, out_scales, out_offsets, out_biases,
                    scratch.logits_BV, starts[steps], scratch.configuration)  # fmt: skip
            for s in range(steps):
                t = first + s
                for row in range(starts[s + 1] - starts[s]):
                    _judge(scratch.logits_BV[starts[s] + row], symbols, targets[row, t], scratch,
                           logprobs[row, t : t + 1], ranks[row, t : t + 1], tops[row, t],
                           top_logprobs[row, t])  # fmt: skip
        first += steps


@compiled
def write(
    weights: Any, scratch: Any, kernel: int, units: int, symbols: int, state: Any, slots: Any,
    chars: Any, steps: Any, positions: Any, integers: Any, floats: Any, counts: Any, biases: Any,
    drawn: Any, logprobs: Any, tops: Any, top_logprobs: Any,
) -> None:  # fmt: skip
    """Draw up to steps[b] symbols on each row b.

    A row reads chars[b], draws a symbol, reads that symbol, and so on; it ends after
    drawing the boundary. ``integers`` [B, 4] holds seed, choice, top_k and whether the
    boundary may be drawn; ``floats`` [B, 5] holds temperature, top_p, min_p, frequency and
    presence penalty. ``drawn`` and ``logprobs`` are [B, Q], the likeliest symbols ``tops``
    [B, Q, N]; updates positions [B] and counts. Entries without a drawn symbol keep their
    values.
    """
    rows = len(steps)
    alive = np.ones(rows, dtype=np.bool_)
    packed = np.arange(rows)
    current = np.zeros(rows, dtype=np.int32)
    places = np.zeros(rows, dtype=slots.dtype)
    for q in range(drawn.shape[1]):
        live = 0
        for row in range(rows):
            if alive[row] and q < steps[row]:
                packed[live] = row
                current[live] = chars[row]
                places[live] = slots[row]
                live += 1
        if live == 0:
            break
        step(weights, scratch, kernel, units, current, state, places, live)
        for place in range(live):
            row = packed[place]
            logits = scratch.logits_BV[place]
            number = uniform(integers[row, 0], integers[row, 1], positions[row])
            symbol = choose(
                logits, symbols, counts[row], biases[row], floats[row, 0], floats[row, 1],
                integers[row, 2], floats[row, 2], floats[row, 3], floats[row, 4],
                integers[row, 3] != 0, number, scratch.probabilities_V,
            )  # fmt: skip
            drawn[row, q] = symbol
            total = log_total(logits, symbols, scratch.probabilities_V)
            logprobs[row, q] = np.float64(logits[symbol]) - total
            likeliest(logits, symbols, total, tops[row, q], top_logprobs[row, q])
            if counts.shape[1] > 0:
                counts[row, symbol] += 1
            positions[row] += 1
            chars[row] = symbol
            if symbol == BOUNDARY:
                alive[row] = False
