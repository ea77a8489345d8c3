"""The int8 product in tiles, for processors with AMX: 16 rows × 16 outputs × 64 inputs at once.

Five times as many multiplications per second as AVX-512 VNNI, with the same packed
weights and the same bits, because sums of integers are exact. Linux grants a process the
tile registers on request. ``CONFIGURATION`` is empty where it did not, so compiled code
checks it at run time. ``products.py`` is the only caller.

A panel of weights (16 outputs, four consecutive inputs) already has the layout of a tile.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .llvm import (
    BYTES,
    I8,
    LANES,
    V16F32,
    V16I32,
    VECTOR_BYTES,
    counted,
    declared,
    integer,
    load,
    scaled,
    store,
)
from .vectors import FEATURES, GROUP, compiled

HAS_TILES: Final = bool(
    FEATURES.get("amx-tile") and FEATURES.get("amx-int8") and FEATURES.get("avx512f")
)
TILE_ROWS: Final = 16
DEPTH: Final = 64
"""Inputs per tile: K must be a multiple of it."""

# Linux on x86-64: the system call arch_prctl, ARCH_REQ_XCOMP_PERM, the state component of
# the tiles (Documentation/arch/x86/xstate.rst).
_ARCH_PRCTL, _REQUEST_STATE, _TILE_STATE = 158, 0x1023, 18


def _configuration() -> NDArray[np.uint8]:  # pragma: no cover  (depends on the machine)
    """Eight full tiles in the format of ``ldtilecfg``; empty without tiles."""
    nothing = np.zeros(0, dtype=np.uint8)
    if not HAS_TILES or sys.platform != "linux":
        return nothing
    try:
        if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILE_STATE) != 0:
            return nothing
    except (OSError, AttributeError):
        return nothing
    shape = np.zeros(64, dtype=np.uint8)  # the layout in Intel's manual for ldtilecfg
    shape[0] = 1  # the only palette
    shape[16:32].view(np.uint16)[:] = DEPTH  # bytes per row
    shape[48:56] = TILE_ROWS
    return shape


CONFIGURATION: Final = _configuration()


def _call(builder: Any, name: str, *arguments: Any) -> None:  # pragma: no cover
    """Call one of LLVM's tile intrinsics; integer arguments are tile registers."""
    given = [ir.Constant(I8, each) if isinstance(each, int) else each for each in arguments]
    kind = ir.FunctionType(ir.VoidType(), [each.type for each in given])
    builder.call(declared(builder, f"llvm.x86.{name}", kind), given)


def _configuring(typing: Any, address: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _call(builder, "ldtilecfg", builder.inttoptr(arguments[0], BYTES))
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _releasing(typing: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


def _block(high: int, wide: int) -> Any:
    """Sums of ``high`` · 16 rows and ``wide`` · 16 outputs (high · wide = 4), stored in ``y``.

    Arguments are addresses and counts: inputs, bytes from one input row to the next,
    weights, bytes from one panel to the next, steps of 64 inputs, results, bytes from one
    result row to the next.
    """

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:  # pragma: no cover
        x, x_row, w, panel, steps, y, y_row = arguments

        def place(base: Any, *offsets: Any) -> Any:
            for each in offsets:
                base = builder.add(base, each)
            return builder.inttoptr(base, BYTES)

        for tile in range(4):
            _call(builder, "tilezero", tile)
        with counted(builder, steps, "sum") as loop:
            across = builder.mul(loop.step, integer(DEPTH))
            down = builder.mul(loop.step, integer(DEPTH * LANES))
            for part in range(high):
                rows = builder.mul(x_row, integer(TILE_ROWS * part))
                _call(builder, "tileloadd64", 4 + part, place(x, across, rows), x_row)
            for part in range(wide):
                # With one tile of rows, three registers are left for four panels.
                tile = 4 + high + part % (4 - high)
                panels = builder.mul(panel, integer(part))
                _call(builder, "tileloadd64", tile, place(w, down, panels), integer(DEPTH))
                for row in range(high):
                    _call(builder, "tdpbusd", row * wide + part, 4 + row, tile)
        for row in range(high):
            for part in range(wide):
                rows = builder.mul(y_row, integer(TILE_ROWS * row))
                at = place(y, rows, integer(VECTOR_BYTES * part))
                _call(builder, "tilestored64", row * wide + part, at, y_row)
        return context.get_dummy_value()

    def typed(typing: Any, x: Any, x_row: Any, w: Any, panel: Any, steps: Any, y: Any,
              y_row: Any) -> Any:  # fmt: skip  # pragma: no cover
        return types.void(*[types.int64] * 7), generate

    return intrinsic(typed)


def _finishing(typing: Any, y: Any, y_row: Any, rows: Any, scales: Any, offsets: Any,
               biases: Any) -> Any:  # fmt: skip  # pragma: no cover
    """Turn the sums of a group of 64 outputs into results in place, row by row."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        y, y_row, rows, *constants = arguments
        y, scales, offsets, biases = (builder.inttoptr(each, BYTES) for each in (y, *constants))
        places = [integer(VECTOR_BYTES * part) for part in range(GROUP // LANES)]
        kept = [
            (
                load(builder, scales, at, V16F32),
                load(builder, offsets, at, V16I32),
                load(builder, biases, at, V16F32),
            )
            for at in places
        ]
        with counted(builder, rows, "row") as loop:
            row = builder.mul(loop.step, y_row)
            for at, (scale, offset, bias) in zip(places, kept, strict=True):
                here = builder.add(row, at)
                total = scaled(builder, load(builder, y, here, V16I32), scale, offset)
                store(builder, builder.fadd(total, bias), y, here)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


_configure: Final[Any] = intrinsic(_configuring)
_release: Final[Any] = intrinsic(_releasing)
_two_by_two, _one_by_four = _block(2, 2), _block(1, 4)
_finish: Final[Any] = intrinsic(_finishing)


@compiled
def product_tiles(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int,
    configuration: Any,
) -> None:  # fmt: skip
    """As ``product_int8``; x and y have room for rows up to a multiple of 16, K is one of 64."""
    width, steps = x_BK.shape[1], x_BK.shape[1] // DEPTH
    x, y, w = x_BK.ctypes.data, y_BN.ctypes.data, panels.ctypes.data
    y_row, panel = y_BN.shape[1] * 4, LANES * width
    _configure(configuration.ctypes.data)
    for group in range(y_BN.shape[1] // GROUP):
        at = group * GROUP
        weights = w + at * width
        r = 0
        while r < rows:
            from_x, to_y = x + r * width, y + r * y_row + 4 * at
            high = 2 * TILE_ROWS if rows - r > TILE_ROWS else TILE_ROWS
            if high > TILE_ROWS:
                _two_by_two(from_x, width, weights, panel, steps, to_y, y_row)
                _two_by_two(from_x, width, weights + 2 * panel, panel, steps,
                            to_y + 8 * LANES, y_row)  # fmt: skip
            else:
                _one_by_four(from_x, width, weights, panel, steps, to_y, y_row)
            _finish(to_y, y_row, min(high, rows - r), scales_N.ctypes.data + 4 * at,
                    offsets_N.ctypes.data + 4 * at, biases_N.ctypes.data + 4 * at)  # fmt: skip
            r += high
    _release()
