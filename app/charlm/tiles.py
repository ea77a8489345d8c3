"""The int8 product by tiles, for processors with AMX: 16 rows × 16 outputs × 64 inputs at once.

Five times as many multiplications a second as with AVX-512 VNNI, over the same
packed weights and with the same bits, for sums of integers are exact. Linux
gives a process the tile registers when it asks (``CONFIGURATION`` is empty where
it did not), so that compiled code looks at run time. ``kernels.py`` is the only
caller.

A panel of weights (16 outputs, four inputs side by side) is a tile as it lies.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from app.charlm.blocks import GROUP, LANES, compiled

_FEATURES: Final[dict[str, bool]] = dict(binding.get_host_cpu_features())
HAS_TILES: Final = bool(
    _FEATURES.get("amx-tile") and _FEATURES.get("amx-int8") and _FEATURES.get("avx512f")
)
TILE_ROWS: Final = 16
DEPTH: Final = 64
"""Inputs of one tile: K must be a multiple of it."""

_ARCH_PRCTL, _REQUEST_STATE, _TILE_STATE = 158, 0x1023, 18  # Linux on x86-64

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _I8.as_pointer()
_V16I32 = ir.VectorType(_I32, LANES)
_V16F32 = ir.VectorType(ir.FloatType(), LANES)


def _configuration() -> NDArray[np.uint8]:  # pragma: no cover  (depends on the machine)
    """Eight full tiles as ``ldtilecfg`` wants them; empty where there are none to be had."""
    nothing = np.zeros(0, dtype=np.uint8)
    if not HAS_TILES or sys.platform != "linux":
        return nothing
    try:
        if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILE_STATE) != 0:
            return nothing
    except (OSError, AttributeError):
        return nothing
    shape = np.zeros(64, dtype=np.uint8)
    shape[0] = 1  # the only palette
    shape[16:32].view(np.uint16)[:] = DEPTH  # bytes a row
    shape[48:56] = TILE_ROWS
    return shape


CONFIGURATION: Final = _configuration()


def _int(value: int) -> ir.Constant:  # pragma: no cover
    return ir.Constant(_I64, value)


def _call(builder: Any, name: str, *arguments: Any) -> None:  # pragma: no cover
    """Call one of LLVM's functions for tiles; numbers are tile registers."""
    given = [ir.Constant(_I8, each) if isinstance(each, int) else each for each in arguments]
    name = f"llvm.x86.{name}"
    kind = ir.FunctionType(ir.VoidType(), [each.type for each in given])
    builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), given)


def _configuring(typing: Any, address: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _call(builder, "ldtilecfg", builder.inttoptr(arguments[0], _BYTES))
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _releasing(typing: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


def _block(high: int, wide: int) -> Any:
    """Sums of ``high`` · 16 rows and ``wide`` · 16 outputs (high · wide = 4), left in ``y``.

    Arguments, addresses and byte counts: inputs, bytes between two rows of them,
    weights, bytes between two panels, steps of 64 inputs, results, bytes between
    two rows of them.
    """

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:  # pragma: no cover
        x, x_row, w, panel, steps, y, y_row = arguments

        def place(base: Any, *offsets: Any) -> Any:
            for each in offsets:
                base = builder.add(base, each)
            return builder.inttoptr(base, _BYTES)

        for tile in range(4):
            _call(builder, "tilezero", tile)
        before = builder.block
        loop, after = builder.append_basic_block("sum"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_I64)
        step.add_incoming(_int(0), before)
        across, down = builder.mul(step, _int(DEPTH)), builder.mul(step, _int(DEPTH * LANES))
        for part in range(high):
            rows = builder.mul(x_row, _int(TILE_ROWS * part))
            _call(builder, "tileloadd64", 4 + part, place(x, across, rows), x_row)
        for part in range(wide):
            # With one tile of rows there are three registers for four panels.
            tile = 4 + high + part % (4 - high)
            panels = builder.mul(panel, _int(part))
            _call(builder, "tileloadd64", tile, place(w, down, panels), _int(DEPTH))
            for row in range(high):
                _call(builder, "tdpbusd", row * wide + part, 4 + row, tile)
        following = builder.add(step, _int(1))
        step.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
        builder.position_at_end(after)
        for row in range(high):
            for part in range(wide):
                rows = builder.mul(y_row, _int(TILE_ROWS * row))
                at = place(y, rows, _int(4 * LANES * part))
                _call(builder, "tilestored64", row * wide + part, at, y_row)
        return context.get_dummy_value()

    def typed(typing: Any, x: Any, x_row: Any, w: Any, panel: Any, steps: Any, y: Any,
              y_row: Any) -> Any:  # fmt: skip  # pragma: no cover
        return types.void(*[types.int64] * 7), generate

    return intrinsic(typed)


def _finishing(typing: Any, y: Any, y_row: Any, rows: Any, scales: Any, offsets: Any,
               biases: Any) -> Any:  # fmt: skip  # pragma: no cover
    """Sums of a group of 64 outputs become results in place, row by row."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        y, y_row, rows = arguments[:3]

        def vector(base: Any, part: int, kind: Any) -> Any:
            at = builder.add(base, _int(4 * LANES * part))
            return builder.inttoptr(at, kind.as_pointer())

        def load(base: Any, part: int, kind: Any) -> Any:
            loaded = builder.load(vector(base, part, kind))
            loaded.align = 1
            return loaded

        kinds = (_V16F32, _V16I32, _V16F32)
        parts = range(GROUP // LANES)
        constants = [
            [load(base, part, kind) for base, kind in zip(arguments[3:], kinds, strict=True)]
            for part in parts
        ]
        before = builder.block
        loop, after = builder.append_basic_block("row"), builder.append_basic_block("rows")
        builder.branch(loop)
        builder.position_at_end(loop)
        row = builder.phi(_I64)
        row.add_incoming(_int(0), before)
        base = builder.add(y, builder.mul(row, y_row))
        for part in parts:
            scale, offset, bias = constants[part]
            exact = builder.sub(load(base, part, _V16I32), offset)
            scaled = builder.fmul(builder.sitofp(exact, _V16F32), scale)
            builder.store(builder.fadd(scaled, bias), vector(base, part, _V16F32)).align = 1
        following = builder.add(row, _int(1))
        row.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, rows), loop, after)
        builder.position_at_end(after)
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
