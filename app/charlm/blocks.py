"""Pieces of compiled code written in LLVM's own language, where registers have names.

``block`` makes the heart of a matrix product: a few rows times a group of 64
outputs, whose sums stay in registers from the first term to the last.
``fused`` is one rounding for a·b + c. Everything else that is compiled is
ordinary numba (``compiled``). Knows no networks.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

LANES: Final = 16
PANELS: Final = 4
GROUP: Final = LANES * PANELS
"""Outputs computed together; N is padded to a multiple of it."""

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


def block(rows: int, *, integers: bool) -> Any:
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

    def typed(typing: Any, x: Any, x_row: Any, w: Any, steps: Any, scales: Any, offsets: Any,
              biases: Any, y: Any, y_row: Any) -> Any:  # fmt: skip  # pragma: no cover
        return types.void(x, x_row, w, steps, scales, offsets, biases, y, y_row), generate

    return intrinsic(typed)


def _fused(typing: Any, a: Any, b: Any, c: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        if not _HAS_FMA:
            return builder.fadd(builder.fmul(arguments[0], arguments[1]), arguments[2])
        kind = ir.FloatType()
        known = builder.module.globals.get("llvm.fma.f32")
        fma = known or ir.Function(
            builder.module, ir.FunctionType(kind, [kind] * 3), "llvm.fma.f32"
        )
        return builder.call(fma, arguments)

    number = types.float32
    return number(number, number, number), generate


fused: Final[Any] = intrinsic(_fused)
"""a·b + c in float32, rounded once where the processor can (and then always)."""


def _shifted(typing: Any, exponent: Any) -> Any:  # pragma: no cover

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        biased = builder.add(arguments[0], _int(1023))
        return builder.bitcast(builder.shl(biased, _int(52)), ir.DoubleType())

    return types.float64(types.int64), generate


power_of_two: Final[Any] = intrinsic(_shifted)
"""2^exponent in float64 for an int64 exponent in −1022..1023, by its bits."""


def _reading(typing: Any, address: Any, count: Any) -> Any:  # pragma: no cover
    """Read ``count`` times 512 bytes in vector registers; gives what they add up to."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[0], _BYTES)
        before = builder.block
        loop, after = builder.append_basic_block("read"), builder.append_basic_block("have read")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_I64)
        step.add_incoming(_int(0), before)
        totals = [builder.phi(_V16I32) for _ in range(8)]
        start = builder.mul(step, _int(8 * 4 * LANES))
        sums = []
        for part, total in enumerate(totals):
            place = builder.add(start, _int(4 * LANES * part))
            value = builder.xor(total, _load(builder, base, place, _V16I32))
            total.add_incoming(ir.Constant(_V16I32, [0] * LANES), before)
            total.add_incoming(value, loop)
            sums.append(value)
        following = builder.add(step, _int(1))
        step.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[1]), loop, after)
        builder.position_at_end(after)
        whole = sums[0]
        for value in sums[1:]:
            whole = builder.xor(whole, value)
        numbers = [builder.extract_element(whole, ir.Constant(_I32, i)) for i in range(LANES)]
        result = numbers[0]
        for number in numbers[1:]:
            result = builder.xor(result, number)
        return result

    return types.int32(types.int64, types.int64), generate


_read_vectors: Final[Any] = intrinsic(_reading)


@compiled
def read_vectors(words: Any) -> int:
    """Read an array of 64-bit words, a multiple of 64 of them, as fast as the processor can."""
    total: int = _read_vectors(words.ctypes.data, len(words) // 64)
    return total
