"""Bounds of the numbers that users may set.

Each bound is defined once, next to the class it applies to (``NETWORK_BOUNDS``,
``TRAINING_BOUNDS``, ``SAMPLING_BOUNDS``, ``FRACTION_BOUNDS``). The command line, job
specifications and request bodies read it from there, and all refuse a number beyond it
in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .errors import InvalidInput

EXACT: Final = 2**53
"""Up to this, and down to its negative, every JSON reader keeps integers exactly."""

_LIMITS: Final = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


@dataclass(frozen=True)
class Bound:
    """The numbers from ``least`` to ``most``; either end may be excluded."""

    least: float
    most: float
    above_least: bool = False  # ``least`` itself is excluded
    below_most: bool = False  # ``most`` itself is excluded

    def holds(self, value: float) -> bool:
        """Whether ``value`` is allowed; NaN never is."""
        enough = value > self.least if self.above_least else value >= self.least
        return enough and (value < self.most if self.below_most else value <= self.most)

    def __str__(self) -> str:
        """``from 1 to 15``, or ``at least 0 and below 1``."""
        if not (self.above_least or self.below_most):
            return f"from {_shown(self.least)} to {_shown(self.most)}"
        low = "above" if self.above_least else "at least"
        high = "below" if self.below_most else "at most"
        return f"{low} {_shown(self.least)} and {high} {_shown(self.most)}"

    def expected(self, value: float) -> str:
        """What ``value``, which is not allowed, should be: ``at most 15``."""
        if value > self.least:
            return limit("lt" if self.below_most else "le", self.most)
        if value <= self.least:
            return limit("gt" if self.above_least else "ge", self.least)
        return str(self)  # NaN


def check_bounds(fields: object, bounds: Mapping[str, Bound], *, group: str = "") -> None:
    """Check the attributes of ``fields`` against their bounds; None passes.

    Raises InvalidInput, naming the field with the prefix ``group`` (such as ``network.``).
    """
    for name, bound in bounds.items():
        value = getattr(fields, name)
        if value is not None and not bound.holds(value):
            raise out_of_range(f"{group}{name}", bound.expected(value))


def out_of_range(field: str, expected: str) -> InvalidInput:
    """The error for a field that must be ``expected``."""
    return InvalidInput(f"{field} must be {expected}.", param=field, code="out_of_range")


def limit(operator: str, number: float) -> str:
    """One end of a range in words: ``at least 1`` for ``ge``; pydantic has the same names."""
    return f"{_LIMITS[operator]} {_shown(number)}"


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
