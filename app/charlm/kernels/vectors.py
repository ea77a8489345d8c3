"""Compiled code over vector registers: the inner loop of a matrix product and its parts.

``block`` makes the product of a few rows with a group of 64 outputs, whose sums stay in
registers from the first term to the last. ``fused`` is a·b + c with one rounding. All
other compiled code is ordinary numba (``compiled``). Knows nothing of networks.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from .llvm import (
    BYTES,
    I32,
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

PANELS: Final = 4  # per group
GROUP: Final = LANES * PANELS
"""Outputs computed together; N is padded to a multiple of it."""

FEATURES: Final[dict[str, bool]] = dict(binding.get_host_cpu_features())
HAS_VNNI: Final = bool(FEATURES.get("avx512vnni") and FEATURES.get("avx512f"))
_HAS_FMA: Final = bool(FEATURES.get("fma"))

_EXPONENT_BIAS, _MANTISSA_BITS = 1023, 52  # of float64 (IEEE 754)

compiled = njit(nogil=True, cache=True, error_model="numpy")
"""Compile for this processor, once; calls release the interpreter lock.

The numpy error model matters. Python's checks every division for zero, which keeps
loops from using vector registers (8 times slower here).
"""

inlined = njit(nogil=True, error_model="numpy")
"""As ``compiled``, for functions that other functions make: they become part of their callers."""


def _spread(builder: Any, value: Any, kind: Any) -> Any:  # pragma: no cover
    """One number in all 16 lanes."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(V16I32, [0] * LANES))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:  # pragma: no cover
    """a·b + c of numbers or vectors; rounded once if the processor has FMA."""
    if not _HAS_FMA:
        return builder.fadd(builder.fmul(a, b), c)
    name = "llvm.fma.v16f32" if a.type == V16F32 else "llvm.fma.f32"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(declared(builder, name, kind), [a, b, c])


def _dot_int8(builder: Any, inputs: Any, weights: Any, sums: Any) -> Any:  # pragma: no cover
    """sums + four products of uint8 inputs and int8 weights, in each of 16 lanes."""
    if HAS_VNNI:
        kind = ir.FunctionType(V16I32, [V16I32] * 3)
        dot = declared(builder, "llvm.x86.avx512.vpdpbusd.512", kind)
        return builder.call(dot, [sums, inputs, weights])
    for byte in range(4):
        up = ir.Constant(V16I32, [8 * (3 - byte)] * LANES)
        down = ir.Constant(V16I32, [24] * LANES)
        x = builder.lshr(builder.shl(inputs, up), down)
        w = builder.ashr(builder.shl(weights, up), down)
        sums = builder.add(sums, builder.mul(x, w))
    return sums


def block(rows: int, *, integers: bool) -> Any:
    """The product of ``rows`` rows with one group of 64 outputs, as a compiled intrinsic.

    Its arguments are addresses and counts: inputs, bytes from one input row to the next,
    packed weights of the group, steps of the sum, constants per output (scale and offset
    for int8, bias for both), results, bytes from one result row to the next.
    """
    kind = V16I32 if integers else V16F32
    scalar = I32 if integers else ir.FloatType()
    join = _dot_int8 if integers else _fma

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:  # pragma: no cover
        x, x_row, w, steps, scales, offsets, biases, y, y_row = arguments
        x, w, scales, offsets, biases, y = (
            builder.inttoptr(address, BYTES) for address in (x, w, scales, offsets, biases, y)
        )
        panel = builder.mul(steps, integer(VECTOR_BYTES))
        zero = ir.Constant(kind, [0] * LANES)
        with counted(builder, steps, "sum") as loop:
            sums = [[builder.phi(kind) for _ in range(PANELS)] for _ in range(rows)]
            offset = builder.mul(loop.step, integer(VECTOR_BYTES))
            weights = [
                load(builder, w, builder.add(offset, builder.mul(panel, integer(p))), kind)
                for p in range(PANELS)
            ]
            for row in range(rows):
                place = builder.add(
                    builder.mul(loop.step, integer(4)), builder.mul(x_row, integer(row))
                )
                inputs = _spread(builder, load(builder, x, place, scalar), kind)
                for p in range(PANELS):
                    before = sums[row][p]
                    sums[row][p] = join(builder, inputs, weights[p], before)
                    before.add_incoming(zero, loop.before)
                    before.add_incoming(sums[row][p], loop.body)
        for row in range(rows):
            for p in range(PANELS):
                at = integer(VECTOR_BYTES * p)
                bias, total = load(builder, biases, at, V16F32), sums[row][p]
                if integers:
                    offset = load(builder, offsets, at, V16I32)
                    total = scaled(builder, total, load(builder, scales, at, V16F32), offset)
                place = builder.add(builder.mul(y_row, integer(row)), at)
                store(builder, builder.fadd(total, bias), y, place)
        return context.get_dummy_value()

    def typed(typing: Any, x: Any, x_row: Any, w: Any, steps: Any, scales: Any, offsets: Any,
              biases: Any, y: Any, y_row: Any) -> Any:  # fmt: skip  # pragma: no cover
        return types.void(x, x_row, w, steps, scales, offsets, biases, y, y_row), generate

    return intrinsic(typed)


def _fused(typing: Any, a: Any, b: Any, c: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return _fma(builder, *arguments)

    number = types.float32
    return number(number, number, number), generate


fused: Final[Any] = intrinsic(_fused)
"""a·b + c in float32, always rounded once if the processor has FMA, else always twice."""


def _shifted(typing: Any, exponent: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        biased = builder.add(arguments[0], integer(_EXPONENT_BIAS))
        return builder.bitcast(builder.shl(biased, integer(_MANTISSA_BITS)), ir.DoubleType())

    return types.float64(types.int64), generate


power_of_two: Final[Any] = intrinsic(_shifted)
"""2^exponent in float64 for an int64 exponent in −1022..1023, made from its bits."""

_STREAMS: Final = 8
"""Vectors read at a time: enough that no read waits for another."""


def _reading(typing: Any, address: Any, count: Any) -> Any:  # pragma: no cover
    """Read ``_STREAMS`` vectors ``count`` times; returns the exclusive or of all of them."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[0], BYTES)
        zero = ir.Constant(V16I32, [0] * LANES)
        with counted(builder, arguments[1], "read") as loop:
            totals = [builder.phi(V16I32) for _ in range(_STREAMS)]
            start = builder.mul(loop.step, integer(_STREAMS * VECTOR_BYTES))
            sums = []
            for part, total in enumerate(totals):
                place = builder.add(start, integer(VECTOR_BYTES * part))
                value = builder.xor(total, load(builder, base, place, V16I32))
                total.add_incoming(zero, loop.before)
                total.add_incoming(value, loop.body)
                sums.append(value)
        whole = sums[0]
        for value in sums[1:]:
            whole = builder.xor(whole, value)
        numbers = [builder.extract_element(whole, ir.Constant(I32, i)) for i in range(LANES)]
        result = numbers[0]
        for number in numbers[1:]:
            result = builder.xor(result, number)
        return result

    return types.int32(types.int64, types.int64), generate


_read_vectors: Final[Any] = intrinsic(_reading)

READ_WORDS: Final = _STREAMS * VECTOR_BYTES // 8
"""How many 64-bit words ``read_vectors`` reads at a time."""


@compiled
def read_vectors(words: Any) -> int:
    """Read 64-bit words, a multiple of ``READ_WORDS``, as fast as possible."""
    total: int = _read_vectors(words.ctypes.data, len(words) // READ_WORDS)
    return total
