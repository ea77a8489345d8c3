"""The compiled part of sampling: random numbers, logprobs, the likeliest and the next symbol.

``charlm/sampling.py`` explains the parameters. Everything is computed in float64 and in a
fixed order, so that a row gives the same symbol whatever the other rows are.

Shapes: V symbols.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from ..vocabulary import BOUNDARY, UNKNOWN
from .exponentials import exponentials, highest, total
from .vectors import compiled

_COLDEST: Final = 1e-6
"""Lower temperatures take the likeliest symbol: logits could not be divided by them."""

# The increment and the two multipliers of splitmix64 (Steele, Lea and Flood 2014).
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIX1: Final = 0xBF58476D1CE4E5B9
_MIX2: Final = 0x94D049BB133111EB


@compiled
def uniform(seed: int, choice: int, position: int) -> float:
    """A number 0 ≤ u < 1 with 53 random bits, determined by the three arguments.

    Three rounds of the splitmix64 finaliser (Steele, Lea and Flood 2014).
    """
    state = np.uint64(0)
    for part in (seed, choice, position):
        state = (state ^ np.uint64(part)) + np.uint64(_GOLDEN)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX1)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX2)
        state = state ^ (state >> np.uint64(31))
    return np.float64(state >> np.uint64(11)) * 2.0**-53


@compiled
def log_total(logits: Any, symbols: int, scratch: Any) -> float:
    """ln Σ e^logit over the first ``symbols``, in float64; ``scratch`` is [V] of float64."""
    for v in range(symbols):
        scratch[v] = np.float64(logits[v])
    top = highest(scratch, symbols)
    exponentials(scratch, symbols, top, 1.0)
    return top + math.log(total(scratch, symbols))


@compiled
def likeliest(logits: Any, symbols: int, whole: float, ids: Any, logprobs: Any) -> None:
    """Fill ids [N] and logprobs [N] with the likeliest symbols, the lowest id first among equals.

    ``whole`` is the ``log_total`` of the logits. With fewer than N symbols, ids end in −1.
    """
    count = 0
    for v in range(symbols if len(ids) else 0):
        value = np.float64(logits[v]) - whole
        if count == len(ids) and not value > logprobs[count - 1]:
            continue
        place = min(count, len(ids) - 1)
        count = min(count + 1, len(ids))
        while place > 0 and logprobs[place - 1] < value:
            ids[place], logprobs[place] = ids[place - 1], logprobs[place - 1]
            place -= 1
        ids[place], logprobs[place] = v, value
    for place in range(count, len(ids)):
        ids[place] = -1


@compiled
def _cut(weights: Any, order: Any, top_p: float, top_k: int, min_p: float) -> int:
    """How many of the symbols in ``order`` (likeliest first) truncation keeps."""
    enough = top_p * total(weights, len(order))
    kept, sum_so_far = 0, 0.0
    while kept < len(order) and (kept == 0 or sum_so_far < enough):
        sum_so_far += weights[order[kept]]
        kept += 1
    if top_k > 0:
        kept = min(kept, top_k)
    least = min_p * weights[order[0]]
    while kept > 1 and weights[order[kept - 1]] < least:
        kept -= 1
    return kept


@compiled
def choose(
    logits: Any,
    symbols: int,
    counts: Any,
    biases: Any,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    frequency: float,
    presence: float,
    boundary: bool,
    number: float,
    weights: Any,
) -> int:
    """The id of the next symbol for one row.

    ``counts`` and ``biases`` are [V] or empty; ``boundary`` says whether the boundary may
    be drawn (the unknown symbol never is); ``number`` comes from ``uniform``; ``weights``
    is scratch [V] of float64.
    """
    for v in range(symbols):
        weights[v] = np.float64(logits[v])
    if len(biases):
        for v in range(symbols):
            weights[v] += np.float64(biases[v])
    if len(counts):
        for v in range(symbols):
            if counts[v] > 0:
                weights[v] -= presence + frequency * counts[v]
    weights[UNKNOWN] = -np.inf
    if not boundary:
        weights[BOUNDARY] = -np.inf
    top = highest(weights, symbols)
    if temperature < _COLDEST:
        best = 0
        while weights[best] < top:
            best += 1
        return best
    exponentials(weights, symbols, top, 1.0 / temperature)
    if top_p < 1.0 or top_k > 0 or min_p > 0.0:
        order = np.argsort(-weights[:symbols], kind="mergesort")
        kept = _cut(weights, order, top_p, top_k, min_p)
        for place in range(kept, symbols):
            weights[order[place]] = 0.0
    reached, goal, last = 0.0, number * total(weights, symbols), 0
    for v in range(symbols):
        if weights[v] > 0.0:
            reached += weights[v]
            last = v
            if reached > goal:
                break
    return last
