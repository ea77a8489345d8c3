"""What this machine's processor could do at best, measured on one core.

Two floors bound inference: reading every weight once a step (one stream), and
multiplying and adding (many streams). Both are measured, not looked up, with the
same instructions that the kernels use and nothing else to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from app.charlm.blocks import GROUP, read_vectors
from app.charlm.kernels import pack, product_float32, product_int8

_REPEATS: Final = 7


def best_seconds(work: Callable[[], object], least_seconds: float = 0.02) -> float:
    """The shortest time of one call, over several rounds of many calls.

    Machines are shared: the shortest time is the one that was disturbed least.
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
    """The time to read ``size`` bytes that were read a moment before."""
    words = np.arange(max(64, -(-size // 512) * 64), dtype=np.int64)
    return best_seconds(lambda: read_vectors(words))


def multiply_adds_per_second(*, integers: bool) -> float:
    """The rate of a product whose operands stay in the first-level cache."""
    rows, inputs = 48, 256
    weights = np.ones((GROUP, inputs), dtype=np.float32)
    matrix = pack(weights, np.zeros(GROUP, dtype=np.float32), integers=integers)
    x_BK = np.ones((rows, inputs), dtype=np.uint8 if integers else np.float32)
    y_BN = np.empty((rows, GROUP), dtype=np.float32)

    product = product_int8 if integers else product_float32

    def work() -> None:
        product(x_BK, matrix.panels, matrix.scales_N, matrix.offsets_N, matrix.biases_N, y_BN, rows)

    return rows * inputs * GROUP / best_seconds(work)
