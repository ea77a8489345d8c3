"""The best that this machine's processor could do, measured on one core.

Two floors bound inference: reading every weight once per step (one row), and multiplying
and adding (many rows). Both are measured, not looked up, with the same instructions as
the kernels and no other work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ..charlm.kernels.amx import CONFIGURATION
from ..charlm.kernels.products import pack, product
from ..charlm.kernels.vectors import GROUP, READ_WORDS, compiled, read_vectors

_REPEATS: Final = 7
_PRODUCT: Final = (64, 512, 8 * GROUP)  # rows, inputs, outputs: fits the nearest caches


def best_seconds(work: Callable[[], object], least_seconds: float = 0.02) -> float:
    """The shortest time of one call over several rounds of many calls.

    Machines are shared: the shortest time was disturbed least.
    """
    work()
    calls, best = 1, float("inf")
    for _ in range(_REPEATS):
        while True:
            start = time.perf_counter()
            for _ in range(calls):
                work()
            taken = time.perf_counter() - start
            if taken >= least_seconds:
                break
            calls *= 2
        best = min(best, taken / calls)
    return best


def streaming_seconds(size: int) -> float:
    """The time to read ``size`` bytes that were just read."""
    reads = max(1, -(-size // (8 * READ_WORDS)))
    words = np.arange(reads * READ_WORDS, dtype=np.int64)
    return best_seconds(lambda: read_vectors(words))


@compiled
def _product(x: Any, panels: Any, scales: Any, offsets: Any, biases: Any, y: Any, rows: int,
             configuration: Any) -> None:  # fmt: skip
    product(x, panels, scales, offsets, biases, y, rows, configuration)


def multiply_adds_per_second(*, integers: bool) -> float:
    """The rate of a product whose operands stay in the nearest caches."""
    rows, inputs, outputs = _PRODUCT
    weights = np.ones((outputs, inputs), dtype=np.float32)
    matrix = pack(weights, np.zeros(outputs, dtype=np.float32), integers=integers)
    x_BK = np.ones((rows, inputs), dtype=np.uint8 if integers else np.float32)
    y_BN = np.empty((rows, outputs), dtype=np.float32)

    def work() -> None:
        _product(x_BK, matrix.panels, matrix.scales_N, matrix.offsets_N, matrix.biases_N, y_BN,
                 rows, CONFIGURATION)  # fmt: skip

    return rows * inputs * outputs / best_seconds(work)
