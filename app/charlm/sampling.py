"""Choosing the next symbol: penalties, temperature, truncations, one random number.

The random number is a function of (seed, choice, position), never of a shared
generator, so a sequence gives the same text whoever else is being served. The
symbol is the first, in the order of ids, at which the cumulative probability
passes that number.

Shapes: V symbols.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.charlm.blocks import compiled
from app.charlm.exponentials import exponentials, highest, total
from app.charlm.vocabulary import BOUNDARY, UNKNOWN
from app.errors import InvalidInput

_COLDEST: Final = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How symbols are drawn; the defaults draw from the network's own distribution.

    ``temperature`` 0 takes the likeliest symbol (of equals, the lowest id), and so
    does one below a millionth, by which logits could not be divided.
    After it come the truncations: ``top_p`` keeps the likeliest symbols that
    hold that share of the probability, ``top_k`` at most so many of them (0 is
    off), ``min_p`` those at least so likely relative to the likeliest. The
    penalties lower the logit of a symbol for each time (frequency) or once
    (presence) that it was drawn before. ``logit_bias`` holds (symbol id, value)
    pairs. Raises InvalidInput, naming the field.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("temperature", 0.0, 5.0),
            ("top_p", 0.0, 1.0),
            ("top_k", 0, 2**31),
            ("min_p", 0.0, 1.0),
            ("frequency_penalty", -2.0, 2.0),
            ("presence_penalty", -2.0, 2.0),
            ("seed", 0, 2**63 - 1),
        ):
            if not least <= getattr(self, name) <= most:
                raise InvalidInput(
                    f"{name} must be from {least:g} to {most:g}.", param=name, code="out_of_range"
                )
        if not all(-100 <= value <= 100 for _, value in self.logit_bias):
            raise InvalidInput(
                "logit_bias values must be from -100 to 100.",
                param="logit_bias",
                code="out_of_range",
            )

    @property
    def counts_matter(self) -> bool:
        """Whether earlier symbols change what is drawn."""
        return bool(self.frequency_penalty or self.presence_penalty)

    def bias_row(self, symbols: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The biases as one float32 row [V], or [0] when there are none."""
        if not self.logit_bias:
            return np.zeros(0, dtype=np.float32)
        row = np.zeros(symbols, dtype=np.float32)
        for symbol_id, value in self.logit_bias:
            if not 0 <= symbol_id < symbols:
                raise InvalidInput(
                    f"logit_bias names symbol {symbol_id}; the model has 0 to {symbols - 1}.",
                    param="logit_bias",
                    code="out_of_range",
                )
            row[symbol_id] = value
        return row


@compiled
def uniform(seed: int, choice: int, position: int) -> float:
    """A number in 0 ≤ u < 1 with 53 random bits, fixed by its three arguments.

    Three rounds of the splitmix64 finaliser (Steele, Lea and Flood 2014).
    """
    state = np.uint64(0)
    for part in (seed, choice, position):
        state = (state ^ np.uint64(part)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
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
    """Fill ids [N] and logprobs [N] with the likeliest symbols, of equals the lowest id first.

    ``whole`` is their ``log_total``. Where there are fewer than N symbols, ids end in −1.
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
    """How many of the symbols in ``order`` (likeliest first) stay."""
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

    ``counts`` and ``biases`` are [V] or empty; ``boundary`` tells whether the
    boundary may be drawn (the unknown symbol never is); ``number`` is the
    uniform; ``weights`` is scratch [V] of float64.
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
