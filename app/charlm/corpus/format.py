"""The two formats of a corpus, and which share of it is held out. Imports no numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from ...bounds import Bound, out_of_range

CorpusFormat = Literal["text", "lines"]

DEFAULT_FRACTION: Final = 0.05
"""Of the text, for validation and again for test, unless asked otherwise."""
FRACTION_BOUNDS: Final[Mapping[str, Bound]] = {
    "validation_fraction": Bound(0.0, 0.4, above_least=True),
    "test_fraction": Bound(0.0, 0.4),
}
"""Bounds of the shares of a corpus to hold out."""


def check_fractions(validation: float, test: float) -> None:
    """Raise InvalidInput, naming the field, unless both fractions are within their bounds."""
    for name, value in (("validation_fraction", validation), ("test_fraction", test)):
        if not FRACTION_BOUNDS[name].holds(value):
            raise out_of_range(f"training.{name}", FRACTION_BOUNDS[name].expected(value))
