"""Matrix products in which a row's result never depends on the other rows.

Two products, both ``y_BN = x_BK · W_NK^T`` plus a bias, compiled by numba for the
processor that runs them. Both release the interpreter lock:

- **int8**: int8 weights with one scale per output, uint8 inputs around 128 with the fixed
  scale 1/127. The sums are integers, exact in any order, so a row gives the same bits
  alone or among hundreds. One instruction multiplies and adds 64 pairs with AVX-512
  VNNI, 16,384 with AMX (``amx.py``).
- **float32**: every sum is added in the order of k, whatever the number of rows, so the
  rounding is always the same.

Weights are packed in panels of 16 outputs, so that one vector register holds one number
(float32) or four consecutive numbers (int8) for each of 16 outputs; the inner loops are
in ``vectors.py``.

Shapes: B rows, K inputs (a multiple of 16), N outputs (a multiple of 64).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from .amx import DEPTH, HAS_TILES, TILE_ROWS, product_tiles
from .llvm import LANES
from .vectors import GROUP, block, compiled, inlined

ACTIVATION_SCALE: Final = 1.0 / 127.0
ZERO_POINT: Final = 128
_LEAST_WEIGHT: Final = 1e-30
"""The least value of an output's largest weight, so that no scale is 0."""

LEAST_TILE_ROWS: Final = 5
"""Fewer rows are as fast without tiles, which always compute 16 rows."""


def _group(integers: bool) -> Any:
    """The product of all rows with one group of 64 outputs, in blocks of 6, 4, 2 and 1 rows.

    The arguments are those of ``block`` and the number of rows.
    """
    six, four, two, one = (block(size, integers=integers) for size in (6, 4, 2, 1))

    def multiply(  # pragma: no cover  (compiled)
        x: int, x_row: int, w: int, steps: int, scales: int, offsets: int, biases: int, y: int,
        y_row: int, rows: int,
    ) -> None:  # fmt: skip
        r = 0
        while r + 6 <= rows:
            six(x + r * x_row, x_row, w, steps, scales, offsets, biases, y + r * y_row, y_row)
            r += 6
        while r + 4 <= rows:
            four(x + r * x_row, x_row, w, steps, scales, offsets, biases, y + r * y_row, y_row)
            r += 4
        while r + 2 <= rows:
            two(x + r * x_row, x_row, w, steps, scales, offsets, biases, y + r * y_row, y_row)
            r += 2
        if r < rows:
            one(x + r * x_row, x_row, w, steps, scales, offsets, biases, y + r * y_row, y_row)

    # Numba caches each compiled caller on its own and links it by name: two functions of one
    # name would be taken for the same.
    multiply.__qualname__ = f"multiply_{'int8' if integers else 'float32'}"
    return inlined(multiply)


_group_int8, _group_float32 = _group(integers=True), _group(integers=False)


@compiled
def product_int8(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int
) -> None:
    """y[:rows] = (x[:rows] − 128) · W^T · scale + bias; x uint8, W packed int8, y float32."""
    width, y_row = x_BK.shape[1], y_BN.shape[1] * 4
    for first in range(0, y_BN.shape[1], GROUP):
        _group_int8(
            x_BK.ctypes.data, width, panels.ctypes.data + first * width, width // 4,
            scales_N.ctypes.data + 4 * first, offsets_N.ctypes.data + 4 * first,
            biases_N.ctypes.data + 4 * first, y_BN.ctypes.data + 4 * first, y_row, rows,
        )  # fmt: skip


@compiled
def product_float32(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int
) -> None:
    """y[:rows] = x[:rows] · W^T + bias, all float32, each sum in the order of k."""
    width, y_row = x_BK.shape[1], y_BN.shape[1] * 4
    for first in range(0, y_BN.shape[1], GROUP):
        biases = biases_N.ctypes.data + 4 * first
        _group_float32(
            x_BK.ctypes.data, 4 * width, panels.ctypes.data + 4 * first * width, width,
            biases, biases, biases, y_BN.ctypes.data + 4 * first, y_row, rows,
        )  # fmt: skip


def product(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int,
    configuration: Any,
) -> None:  # fmt: skip
    """The product that fits panels, rows and processor; for compiled callers.

    x and y hold ``room_for(rows)`` rows; ``configuration`` is ``amx.CONFIGURATION``.
    """


@overload(product)
def _product(  # pragma: no cover  (runs while compiling, not when the cache is warm)
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: Any,
    configuration: Any,
) -> Any:  # fmt: skip
    integers = panels.dtype == types.int8
    chosen = product_int8 if integers else product_float32

    def call(
        x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: Any,
        configuration: Any,
    ) -> Any:  # fmt: skip
        chosen(x_BK, panels, scales_N, offsets_N, biases_N, y_BN, rows)

    def call_tiles(
        x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: Any,
        configuration: Any,
    ) -> Any:  # fmt: skip
        if len(configuration) and rows >= LEAST_TILE_ROWS and x_BK.shape[1] % DEPTH == 0:
            product_tiles(x_BK, panels, scales_N, offsets_N, biases_N, y_BN, rows, configuration)
        else:
            product_int8(x_BK, panels, scales_N, offsets_N, biases_N, y_BN, rows)

    return call_tiles if integers and HAS_TILES else call


def room_for(rows: int) -> int:
    """The number of rows that the arrays of a product must have."""
    return padded(rows, TILE_ROWS) if rows >= LEAST_TILE_ROWS else rows


def load_input(hidden: Any, x: Any, units: int) -> None:
    """Write a hidden state into ``x`` in the product's input type; for compiled callers.

    For int8 that is exactly round(127·h) + 128 for every h in −1..1.
    """


@overload(load_input)
def _load_input(hidden: Any, x: Any, units: Any) -> Any:  # pragma: no cover
    if x.dtype == types.uint8:

        def quantize(hidden: Any, x: Any, units: Any) -> Any:
            for j in range(units):
                # Adding ½ and truncating rounds, because all values are positive.
                x[j] = np.uint8(hidden[j] * np.float32(127.0) + np.float32(128.5))

        return quantize

    def copy(hidden: Any, x: Any, units: Any) -> Any:
        for j in range(units):
            x[j] = hidden[j]

    return copy


def padded(size: int, multiple: int) -> int:
    """``size`` rounded up to a multiple."""
    return -(-size // multiple) * multiple


@dataclass(frozen=True)
class PackedMatrix:
    """A weight matrix in panels, and the constants that turn its sums into results.

    ``panels`` is int8 or float32; ``scales_N`` and ``offsets_N`` (128 Σ_k w) are
    for int8 only.
    """

    panels: NDArray[Any]
    scales_N: NDArray[np.float32]
    offsets_N: NDArray[np.int32]
    biases_N: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        arrays = (self.panels, self.scales_N, self.offsets_N, self.biases_N)
        return sum(array.nbytes for array in arrays)


def pack(
    weights_NK: NDArray[np.float32], biases_N: NDArray[np.float32], *, integers: bool
) -> PackedMatrix:
    """Pack a matrix; N must be a multiple of 64, K of 16.

    int8 is symmetric, with one scale per output: w ≈ scale · round(w / scale) with
    scale = max |w| / 127.
    """
    outputs, inputs = weights_NK.shape
    assert outputs % GROUP == 0
    assert inputs % LANES == 0
    if not integers:
        panels = weights_NK.reshape(-1, LANES, inputs).transpose(0, 2, 1)
        nothing = np.zeros(0)
        return PackedMatrix(
            np.ascontiguousarray(panels, dtype=np.float32),
            nothing.astype(np.float32),
            nothing.astype(np.int32),
            biases_N.astype(np.float32),
        )
    scales_N = np.maximum(np.abs(weights_NK).max(axis=1), _LEAST_WEIGHT) / 127.0
    whole = np.rint(weights_NK / scales_N[:, None]).astype(np.int8)
    panels = whole.reshape(-1, LANES, inputs // 4, 4).transpose(0, 2, 1, 3)
    return PackedMatrix(
        np.ascontiguousarray(panels),
        (scales_N * ACTIVATION_SCALE).astype(np.float32),
        (ZERO_POINT * whole.sum(axis=1, dtype=np.int32)).astype(np.int32),
        biases_N.astype(np.float32),
    )
