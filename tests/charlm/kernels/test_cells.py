"""The compiled cells against the same formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.charlm.cells import CELLS, CellDescriptor
from app.charlm.kernels import cells


def test_tanh_and_sigmoid_are_accurate_everywhere() -> None:
    for value in np.concatenate([np.linspace(-20, 20, 4001), [1e-6, -1e-30, 0.0, 1e30]]):
        x = np.float32(value)
        assert cells.tanh(x) == pytest.approx(np.tanh(float(x)), abs=4e-7)
        assert cells.sigmoid(x) == pytest.approx(1 / (1 + np.exp(-float(x))), abs=4e-7)
        assert abs(cells.tanh(x)) <= 1


Array = NDArray[np.float64]


def sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def expected(name: str, x: Array, h: Array, state: Array, units: int) -> Array:
    a, b = x.reshape(-1, 16)[:, :units], h.reshape(-1, 16)[:, :units]
    if name == "rnn_tanh":
        return np.asarray(np.tanh(a[0] + b[0]))
    if name == "rnn_relu":
        return np.asarray(np.maximum(a[0] + b[0], 0))
    if name == "lstm":
        i, f, o = (sigmoid(a[g] + b[g]) for g in (0, 1, 3))
        c = f * state[units:] + i * np.tanh(a[2] + b[2])
        return np.concatenate((o * np.tanh(c), c))
    assert name == "gru"
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    return np.asarray((1 - z) * np.tanh(a[2] + r * b[2]) + z * state)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.kernel)
@pytest.mark.parametrize("units", [1, 5, 16])
def test_a_step_is_the_formula(cell: CellDescriptor, units: int) -> None:
    """Also holds each descriptor's gates, states and kernel against the compiled function."""
    random = np.random.default_rng(units)
    x, h = (random.normal(size=len(cell.gates) * 16).astype(np.float32) for _ in range(2))
    state = random.normal(size=units * cell.states).astype(np.float32)
    exact = [a.astype(np.float64) for a in (x, h, state)]
    wanted = expected(cell.kernel, exact[0], exact[1], exact[2], units)
    cells.update(cells.kernel_number(cell), x, h, state, units, 16)
    np.testing.assert_allclose(state, wanted, rtol=0, atol=2e-6)


def test_every_cell_has_its_own_branch() -> None:
    """Without a branch ``update`` does nothing, and with another's it is another cell."""
    assert sorted(cells._KERNELS) == sorted({cell.kernel for cell in CELLS})
    random = np.random.default_rng(1)
    for cell in CELLS:
        x, h = (random.normal(size=len(cell.gates) * 16).astype(np.float32) for _ in range(2))
        before = random.normal(size=5 * cell.states).astype(np.float32)
        own, updated = before.copy(), before.copy()
        getattr(cells, cell.kernel)(x, h, own, 5, 16)
        cells.update(cells.kernel_number(cell), x, h, updated, 5, 16)
        assert np.array_equal(updated, own)
        assert not np.array_equal(updated, before)
