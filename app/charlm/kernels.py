"""Matrix products whose result never depends on what else is computed beside them.

Two products, both ``y_BN = x_BK · W_NK^T`` with a bias, compiled by numba for the
processor that runs them and free of the interpreter lock:

- **int8**: weights as int8 with one scale an output, inputs as uint8 around 128
  at the fixed scale 1/127. The sums are integers, exact in any order, so that a
  row gives the same bits alone or among hundreds. With AVX-512 VNNI one
  instruction multiplies and adds 64 pairs.
- **float32**: every sum is added up in the order of k, whatever the number of
  rows, so that the rounding is always the same.

Weights are packed in panels of 16 outputs, so that one vector register holds one
number (float32) or four numbers in a row (int8) for each of 16 outputs. The
inner loops are written in LLVM's own language because only there can registers
be named: a block of rows × 4 panels stays in registers for the whole sum.

Shapes: B rows, K inputs (a multiple of 16), N outputs (a multiple of 64).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

LANES: Final = 16
PANELS: Final = 4
GROUP: Final = LANES * PANELS
"""Outputs computed together; N is padded to a multiple of it."""

ACTIVATION_SCALE: Final = 1.0 / 127.0
ZERO_POINT: Final = 128

_FEATURES: Final[dict[str, bool]] = dict(binding.get_host_cpu_features())
HAS_VNNI: Final = bool(_FEATURES.get("avx512vnni") and _FEATURES.get("avx512f"))
_HAS_FMA: Final = bool(_FEATURES.get("fma"))

compiled = njit(nogil=True, cache=True, error_model="numpy")
"""Compile for this processor, once, and let other threads run meanwhile.

The numpy error model matters: Python's checks every division for zero, which
keeps loops from using vector registers (8 times slower here).
"""

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES = _I8.as_pointer()
_V16I32 = ir.VectorType(_I32, LANES)
_V16F32 = ir.VectorType(ir.FloatType(), LANES)


def _int(value: int) -> ir.Constant:  # pragma: no cover
    return ir.Constant(_I64, value)


def _load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:  # pragma: no cover
    """A vector or number of ``kind`` at ``base + offset`` bytes, aligned or not."""
    place = builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())
    loaded = builder.load(place)
    loaded.align = 1
    return loaded


def _spread(builder: Any, value: Any, kind: Any) -> Any:  # pragma: no cover
    """One number in all 16 lanes."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        first, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    )


def _declared(builder: Any, name: str, kind: Any) -> Any:  # pragma: no cover
    """LLVM's own function of three vectors, declared once a module."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:  # pragma: no cover
    """a·b + c; rounded once where the processor can."""
    if not _HAS_FMA:
        return builder.fadd(builder.fmul(a, b), c)
    return builder.call(_declared(builder, "llvm.fma.v16f32", _V16F32), [a, b, c])


def _dot_int8(builder: Any, sums: Any, inputs: Any, weights: Any) -> Any:  # pragma: no cover
    """sums + four products of uint8 inputs and int8 weights in each of 16 lanes."""
    if HAS_VNNI:
        dot = _declared(builder, "llvm.x86.avx512.vpdpbusd.512", _V16I32)
        return builder.call(dot, [sums, inputs, weights])
    for byte in range(4):
        up = ir.Constant(_V16I32, [8 * (3 - byte)] * LANES)
        down = ir.Constant(_V16I32, [24] * LANES)
        x = builder.lshr(builder.shl(inputs, up), down)
        w = builder.ashr(builder.shl(weights, up), down)
        sums = builder.add(sums, builder.mul(x, w))
    return sums


def _block(rows: int, *, integers: bool) -> Any:
    """The product of ``rows`` rows with one group of 64 outputs, as a compiled intrinsic.

    Arguments, all addresses and byte counts: inputs, bytes between two rows of
    them, packed weights of the group, steps of the sum, per-output constants
    (scale and offset for int8; bias for both), results, bytes between two rows.
    """
    kind = _V16I32 if integers else _V16F32
    scalar = _I32 if integers else ir.FloatType()
    join = _dot_int8 if integers else _fma

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:  # pragma: no cover
        x, x_row, w, steps, scales, offsets, biases, y, y_row = arguments
        x, w, scales, offsets, biases, y = (
            builder.inttoptr(address, _BYTES) for address in (x, w, scales, offsets, biases, y)
        )
        panel = builder.mul(steps, _int(4 * LANES))
        before = builder.block
        loop, after = builder.append_basic_block("sum"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_I64)
        step.add_incoming(_int(0), before)
        sums = [[builder.phi(kind) for _ in range(PANELS)] for _ in range(rows)]
        zero = ir.Constant(kind, [0] * LANES)
        offset = builder.mul(step, _int(4 * LANES))
        weights = [
            _load(builder, w, builder.add(offset, builder.mul(panel, _int(p))), kind)
            for p in range(PANELS)
        ]
        for row in range(rows):
            place = builder.add(builder.mul(step, _int(4)), builder.mul(x_row, _int(row)))
            inputs = _spread(builder, _load(builder, x, place, scalar), kind)
            for p in range(PANELS):
                sums[row][p].add_incoming(zero, before)
                total = (
                    join(builder, sums[row][p], inputs, weights[p])
                    if integers
                    else join(builder, inputs, weights[p], sums[row][p])
                )
                sums[row][p].add_incoming(total, loop)
                sums[row][p] = total
        following = builder.add(step, _int(1))
        step.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
        builder.position_at_end(after)
        for row in range(rows):
            for p in range(PANELS):
                at = _int(4 * LANES * p)
                total = sums[row][p]
                bias = _load(builder, biases, at, _V16F32)
                if integers:
                    exact = builder.sub(total, _load(builder, offsets, at, _V16I32))
                    scaled = builder.fmul(
                        builder.sitofp(exact, _V16F32), _load(builder, scales, at, _V16F32)
                    )
                else:
                    scaled = total
                place = builder.add(builder.mul(y_row, _int(row)), at)
                target = builder.bitcast(builder.gep(y, [place]), _V16F32.as_pointer())
                builder.store(builder.fadd(scaled, bias), target).align = 1
        return context.get_dummy_value()

    def block(typing: Any, x: Any, x_row: Any, w: Any, steps: Any, scales: Any, offsets: Any,
              biases: Any, y: Any, y_row: Any) -> Any:  # fmt: skip  # pragma: no cover
        return types.void(x, x_row, w, steps, scales, offsets, biases, y, y_row), generate

    return intrinsic(block)


_int8_1, _int8_2, _int8_4, _int8_6 = (_block(rows, integers=True) for rows in (1, 2, 4, 6))
_float_1, _float_2, _float_4, _float_6 = (_block(rows, integers=False) for rows in (1, 2, 4, 6))


@compiled
def product_int8(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int
) -> None:
    """y[:rows] = (x[:rows] − 128) · W^T · scale + bias; x uint8, W packed int8, y float32."""
    width, steps = x_BK.shape[1], x_BK.shape[1] // 4
    x, y, w = x_BK.ctypes.data, y_BN.ctypes.data, panels.ctypes.data
    y_row = y_BN.shape[1] * 4
    for group in range(y_BN.shape[1] // GROUP):
        at = group * GROUP
        weights = w + at * width
        scales = scales_N.ctypes.data + 4 * at
        offsets = offsets_N.ctypes.data + 4 * at
        biases = biases_N.ctypes.data + 4 * at
        r = 0
        while r + 6 <= rows:
            _int8_6(x + r * width, width, weights, steps, scales, offsets, biases,
                    y + r * y_row + 4 * at, y_row)  # fmt: skip
            r += 6
        while r + 4 <= rows:
            _int8_4(x + r * width, width, weights, steps, scales, offsets, biases,
                    y + r * y_row + 4 * at, y_row)  # fmt: skip
            r += 4
        while r + 2 <= rows:
            _int8_2(x + r * width, width, weights, steps, scales, offsets, biases,
                    y + r * y_row + 4 * at, y_row)  # fmt: skip
            r += 2
        if r < rows:
            _int8_1(x + r * width, width, weights, steps, scales, offsets, biases,
                    y + r * y_row + 4 * at, y_row)  # fmt: skip


@compiled
def product_float32(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int
) -> None:
    """y[:rows] = x[:rows] · W^T + bias, all float32, each sum in the order of k."""
    width = x_BK.shape[1]
    x, y, w = x_BK.ctypes.data, y_BN.ctypes.data, panels.ctypes.data
    x_row, y_row = width * 4, y_BN.shape[1] * 4
    for group in range(y_BN.shape[1] // GROUP):
        at = group * GROUP
        weights = w + at * width * 4
        b = biases_N.ctypes.data + 4 * at
        r = 0
        while r + 6 <= rows:
            _float_6(x + r * x_row, x_row, weights, width, b, b, b,
                     y + r * y_row + 4 * at, y_row)  # fmt: skip
            r += 6
        while r + 4 <= rows:
            _float_4(x + r * x_row, x_row, weights, width, b, b, b,
                     y + r * y_row + 4 * at, y_row)  # fmt: skip
            r += 4
        while r + 2 <= rows:
            _float_2(x + r * x_row, x_row, weights, width, b, b, b,
                     y + r * y_row + 4 * at, y_row)  # fmt: skip
            r += 2
        if r < rows:
            _float_1(x + r * x_row, x_row, weights, width, b, b, b,
                     y + r * y_row + 4 * at, y_row)  # fmt: skip


def product(
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: int
) -> None:
    """``product_int8`` or ``product_float32``, by the type of the panels; for compiled callers."""


@overload(product)
def _product(  # pragma: no cover  (runs while compiling, not when the cache is warm)
    x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: Any
) -> Any:
    chosen = product_int8 if panels.dtype == types.int8 else product_float32

    def call(
        x_BK: Any, panels: Any, scales_N: Any, offsets_N: Any, biases_N: Any, y_BN: Any, rows: Any
    ) -> Any:
        chosen(x_BK, panels, scales_N, offsets_N, biases_N, y_BN, rows)

    return call


def load_input(hidden: Any, x: Any, units: int) -> None:
    """A hidden state as the input of a product, in the product's type; for compiled callers.

    For int8 it is round(127·h) + 128, exact for every h in −1..1.
    """


@overload(load_input)
def _load_input(hidden: Any, x: Any, units: Any) -> Any:  # pragma: no cover
    if x.dtype == types.uint8:

        def quantize(hidden: Any, x: Any, units: Any) -> Any:
            for j in range(units):
                # Adding a half and cutting off rounds: all values are positive here.
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
    """A weight matrix in panels, with what turns its sums into results.

    ``panels`` is int8 or float32; ``scales_N`` and ``offsets_N`` (128 Σ_k w) are
    used by int8 only.
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
    """Pack a matrix whose sides are multiples of 64 and 16.

    int8 is symmetric, one scale an output: w ≈ scale · round(w / scale) with
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
    scales_N = np.maximum(np.abs(weights_NK).max(axis=1), 1e-30) / 127.0
    whole = np.rint(weights_NK / scales_N[:, None]).astype(np.int8)
    panels = whole.reshape(-1, LANES, inputs // 4, 4).transpose(0, 2, 1, 3)
    return PackedMatrix(
        np.ascontiguousarray(panels),
        (scales_N * ACTIVATION_SCALE).astype(np.float32),
        (ZERO_POINT * whole.sum(axis=1, dtype=np.int32)).astype(np.int32),
        biases_N.astype(np.float32),
    )
