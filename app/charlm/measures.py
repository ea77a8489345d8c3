"""How good a network is at a text: nats, bits per character, perplexity, accuracy.

All are derived from two sums, so that parts of a text add up before anything
is divided. The logarithm is the natural one. ``evaluation.py`` takes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measures:
    """Sums over ``characters`` predicted symbols."""

    total_nats: float
    correct: int
    characters: int

    @property
    def nats(self) -> float:
        """Mean −log p of a character."""
        return self.total_nats / self.characters

    @property
    def bits_per_character(self) -> float:
        """nats / ln 2."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats): as uncertain as a choice among that many equally likely characters."""
        return math.exp(min(self.nats, 700.0))

    @property
    def accuracy(self) -> float:
        """The share of characters that were the network's first guess."""
        return self.correct / self.characters
