"""Bounds of the numbers that users may set.

Each bound is defined once, next to the class it applies to (``NETWORK_BOUNDS``,
``TRAINING_BOUNDS``, ``SAMPLING_BOUNDS``, ``FRACTION_BOUNDS``). The command line, job
specifications and request bodies read it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidInput


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


def check_bounds(fields: object, bounds: Mapping[str, Bound], *, group: str = "") -> None:
    """Check the attributes of ``fields`` against their bounds; None passes.

    Raises InvalidInput, naming the field with the prefix ``group`` (such as ``network.``).
    """
    for name, bound in bounds.items():
        value = getattr(fields, name)
        if value is not None and not bound.holds(value):
            raise out_of_range(f"{group}{name}", str(bound))


def out_of_range(field: str, expected: str) -> InvalidInput:
    """The error for a field that must be ``expected``."""
    return InvalidInput(f"{field} must be {expected}.", param=field, code="out_of_range")


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
