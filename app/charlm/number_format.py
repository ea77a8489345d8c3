"""The number formats in which a network is served. Imports neither numba nor torch."""

from __future__ import annotations

from typing import Final, Literal

Precision = Literal["float32", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
