"""How well a network predicts a text: nats, bits per character, perplexity, accuracy.

All are derived from two sums, so the sums of a text's parts can be added before any
division. Logarithms are natural. ``evaluation.py`` takes the measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_MOST_NATS: Final = 700.0  # e^709.8 is about the largest float64


def perplexity(nats: float) -> float:
    """exp(nats): as uncertain as a choice among that many equally likely characters."""
    return math.exp(min(nats, _MOST_NATS))


@dataclass(frozen=True)
class Measures:
    """Sums over ``characters`` predicted symbols."""

    total_nats: float
    correct: int
    characters: int

    @property
    def nats(self) -> float:
        """Mean −ln p per character."""
        return self.total_nats / self.characters

    @property
    def bits_per_character(self) -> float:
        """nats / ln 2."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats)."""
        return perplexity(self.nats)

    @property
    def accuracy(self) -> float:
        """The share of characters that the network ranked first."""
        return self.correct / self.characters
