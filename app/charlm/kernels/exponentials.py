"""e^x of many numbers at once, sums and maxima: the basis of drawing and of logprobs.

Computed in float64 and in a fixed order of operations, so that the same numbers give the
same bits at any position. The compiler turns the loops into vector instructions, which
it cannot do with the library's exp (10 times slower).

Shapes: V numbers, of which the first ``count`` are used.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from .vectors import compiled, power_of_two

_LEAST: Final = -708.0  # e^−708.4 is the least normal float64
_LOG2_E: Final = 1.4426950408889634
# ln 2 in two parts; the first has few enough bits for exact multiples (Cephes).
_LN2_HIGH: Final = 0.693145751953125
_LN2_LOW: Final = 1.42860682030941723212e-6
# 1.5 · 2^52: adding and subtracting it rounds a float64 to a whole number.
_ROUNDER: Final = 6755399441055744.0
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12 = (
    1 / math.factorial(n) for n in range(2, 13)
)


@compiled
def exponentials(values: Any, count: int, top: float, factor: float) -> None:
    """Replace values[v] by e^((values[v] − top) · factor); no value may exceed ``top``.

    x = n ln 2 + r with |r| ≤ ½ ln 2, and e^x = 2^n e^r by Taylor's series to r¹²;
    the error is below 2 units in the last place. Below −708 it is 0.
    """
    for v in range(count):
        exact = (values[v] - top) * factor
        x = max(exact, _LEAST)
        whole = (x * _LOG2_E + _ROUNDER) - _ROUNDER
        r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
        series = _C12
        series = series * r + _C11
        series = series * r + _C10
        series = series * r + _C9
        series = series * r + _C8
        series = series * r + _C7
        series = series * r + _C6
        series = series * r + _C5
        series = series * r + _C4
        series = series * r + _C3
        series = series * r + _C2
        series = series * r * r + r + 1.0
        power = series * power_of_two(np.int64(whole))
        values[v] = power if exact > _LEAST else 0.0


@compiled
def total(values: Any, count: int) -> float:
    """The sum, in four partial sums that are added at the end."""
    a = b = c = d = 0.0
    for v in range(0, count - 3, 4):
        a += values[v]
        b += values[v + 1]
        c += values[v + 2]
        d += values[v + 3]
    for v in range(count - count % 4, count):
        a += values[v]
    return (a + b) + (c + d)


@compiled
def highest(values: Any, count: int) -> float:
    """The largest of at least one number."""
    a = b = c = d = values[0]
    for v in range(0, count - 3, 4):
        a = max(a, values[v])
        b = max(b, values[v + 1])
        c = max(c, values[v + 2])
        d = max(d, values[v + 3])
    for v in range(count - count % 4, count):
        a = max(a, values[v])
    largest: float = max(max(a, b), max(c, d))
    return largest
