"""How the next symbol is drawn: penalties, temperature, truncation, one random number.

The random number is a function of (seed, choice, position) and no generator is shared, so
a sequence gives the same text whatever else is being served. The symbol is the first,
in the order of ids, at which the cumulative probability exceeds that number. The
compiled functions are in ``kernels/sampling.py``. Imports no numpy: the command line reads
the bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..bounds import Bound, check_bounds, out_of_range

SAMPLING_BOUNDS: Final[Mapping[str, Bound]] = {
    "temperature": Bound(0.0, 5.0),
    "top_p": Bound(0.0, 1.0),
    "top_k": Bound(0, 2**31 - 1),
    "min_p": Bound(0.0, 1.0),
    "frequency_penalty": Bound(-2.0, 2.0),
    "presence_penalty": Bound(-2.0, 2.0),
    "seed": Bound(0, 2**63 - 1),
}
BIAS_BOUND: Final = Bound(-100.0, 100.0)
"""Bound of the value added to one symbol's logit."""


@dataclass(frozen=True)
class Sampling:
    """How symbols are drawn; the defaults draw from the network's own distribution.

    ``temperature`` 0 takes the likeliest symbol (among equals, the lowest id). So does
    any temperature below 1e-6, by which logits could not be divided. Truncation
    follows: ``top_p`` keeps the likeliest symbols that together hold this share of
    the probability, ``top_k`` at most this number of them (0 is off), ``min_p``
    only those whose probability is at least this fraction of the likeliest's. The
    penalties lower the logit of a symbol drawn before: once per occurrence
    (frequency) or once in all (presence). ``logit_bias`` holds (symbol id, value)
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
        check_bounds(self, SAMPLING_BOUNDS)
        if not all(BIAS_BOUND.holds(value) for _, value in self.logit_bias):
            raise out_of_range("logit_bias", f"values {BIAS_BOUND}")

    @property
    def counts_matter(self) -> bool:
        """Whether earlier symbols change what is drawn."""
        return bool(self.frequency_penalty or self.presence_penalty)
