"""Building blocks of LLVM code that vectors and tiles share.

The functions take a builder positioned in a function and add instructions to it. They run
while numba compiles, never when its cache is warm. Knows nothing of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from llvmlite import ir

LANES: Final = 16
"""32-bit numbers in a 512-bit vector register."""

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
BYTES = I8.as_pointer()
V16I32 = ir.VectorType(I32, LANES)
V16F32 = ir.VectorType(ir.FloatType(), LANES)
VECTOR_BYTES: Final = 4 * LANES


def integer(value: int) -> ir.Constant:  # pragma: no cover
    """A 64-bit constant."""
    return ir.Constant(I64, value)


def load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:  # pragma: no cover
    """A vector or number of ``kind`` at ``base + offset`` bytes, aligned or not."""
    loaded = builder.load(_place(builder, base, offset, kind))
    loaded.align = 1
    return loaded


def store(builder: Any, value: Any, base: Any, offset: Any) -> None:  # pragma: no cover
    """Store ``value`` at ``base + offset`` bytes, aligned or not."""
    builder.store(value, _place(builder, base, offset, value.type)).align = 1


def _place(builder: Any, base: Any, offset: Any, kind: Any) -> Any:  # pragma: no cover
    return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())


def declared(builder: Any, name: str, kind: Any) -> Any:  # pragma: no cover
    """LLVM's own function ``name`` of type ``kind``, declared once per module."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def scaled(builder: Any, sums: Any, scale: Any, offset: Any) -> Any:  # pragma: no cover
    """(sums − offset) · scale: the values of an int8 product's sums."""
    exact = builder.sub(sums, offset)
    return builder.fmul(builder.sitofp(exact, V16F32), scale)


class Loop(NamedTuple):
    """A loop under construction: its counter from 0, the block before it, and its body."""

    step: Any
    before: Any
    body: Any


@contextmanager
def counted(builder: Any, count: Any, name: str) -> Iterator[Loop]:  # pragma: no cover
    """Context for the body of a loop that runs ``count`` times, at least once.

    Other values carried from step to step (phis) must come first in the body.
    """
    before = builder.block
    body, after = builder.append_basic_block(name), builder.append_basic_block(f"after {name}")
    builder.branch(body)
    builder.position_at_end(body)
    step = builder.phi(I64)
    step.add_incoming(integer(0), before)
    yield Loop(step, before, body)
    following = builder.add(step, integer(1))
    step.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)
