"""The element-wise part of each cell, compiled; one row at a time.

Every function is a fixed sequence of float32 operations per unit, with no sum across
units, so the bits are the same however the compiler arranges it.

Names: ``x`` and ``h`` are the contributions of the input and the hidden state to the gates
[G·P], including biases, each gate padded to P units; ``state`` is the row's state [S] of
one layer, changed in place; H units, P = H padded to 16.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..cells import CellDescriptor
from .vectors import compiled, fused

_f = np.float32
_HIGHEST: Final = _f(1e30)  # relu is unbounded: a long text could reach infinity − infinity

# tanh(x) ≈ x·P(x²)/Q(x²) on ±7.9 (beyond, tanh in float32 is ±1), with the minimax
# coefficients of Eigen's ptanh_float; error below 3e-7.
_LIMIT: Final = _f(7.90531110763549805)
_P1: Final = _f(4.89352455891786e-03)
_P3: Final = _f(6.37261928875436e-04)
_P5: Final = _f(1.48572235717979e-05)
_P7: Final = _f(5.12229709037114e-08)
_P9: Final = _f(-8.60467152213735e-11)
_P11: Final = _f(2.00018790482477e-13)
_P13: Final = _f(-2.76076847742355e-16)
_Q0: Final = _f(4.89352518554385e-03)
_Q2: Final = _f(2.26843463243900e-03)
_Q4: Final = _f(1.18534705686654e-04)
_Q6: Final = _f(1.19825839466702e-06)
_HALF: Final = _f(0.5)


@compiled
def tanh(value: Any) -> Any:
    """tanh in float32."""
    x = min(max(value, -_LIMIT), _LIMIT)
    q = x * x
    top = fused(q, _P13, _P11)
    top = fused(q, top, _P9)
    top = fused(q, top, _P7)
    top = fused(q, top, _P5)
    top = fused(q, top, _P3)
    top = fused(q, top, _P1)
    low = fused(q, _Q6, _Q4)
    low = fused(q, low, _Q2)
    low = fused(q, low, _Q0)
    return x * top / low


@compiled
def sigmoid(value: Any) -> Any:
    """1 / (1 + e^−x) = ½ + ½ tanh(x / 2)."""
    return fused(_HALF, tanh(_HALF * value), _HALF)


@compiled
def rnn_tanh(x: Any, h: Any, state: Any, units: int, padded: int) -> None:
    """h_t = tanh(W_hh h_{t−1} + W_xh x_t + b_h)."""
    for j in range(units):
        state[j] = tanh(x[j] + h[j])


@compiled
def rnn_relu(x: Any, h: Any, state: Any, units: int, padded: int) -> None:
    """h_t = max(0, W_hh h_{t−1} + W_xh x_t + b_h), at most ``_HIGHEST``."""
    for j in range(units):
        state[j] = min(max(x[j] + h[j], _f(0.0)), _HIGHEST)


@compiled
def lstm(x: Any, h: Any, state: Any, units: int, padded: int) -> None:
    """c_t = f·c_{t−1} + i·g and h_t = o·tanh(c_t); gates in the order i, f, g, o."""
    # Slices show the compiler that the arrays do not overlap.
    x_i, x_f, x_g, x_o = x[:padded], x[padded:], x[2 * padded :], x[3 * padded :]
    h_i, h_f, h_g, h_o = h[:padded], h[padded:], h[2 * padded :], h[3 * padded :]
    hidden, memory = state[:units], state[units:]
    for j in range(units):
        kept = sigmoid(x_f[j] + h_f[j]) * memory[j]
        c = fused(sigmoid(x_i[j] + h_i[j]), tanh(x_g[j] + h_g[j]), kept)
        memory[j] = c
        hidden[j] = sigmoid(x_o[j] + h_o[j]) * tanh(c)


@compiled
def gru(x: Any, h: Any, state: Any, units: int, padded: int) -> None:
    """n = tanh(x_n + r·h_n) and h_t = (1 − z)·n + z·h_{t−1}; gates in the order r, z, n."""
    x_r, x_z, x_n = x[:padded], x[padded:], x[2 * padded :]
    h_r, h_z, h_n = h[:padded], h[padded:], h[2 * padded :]
    hidden = state[:units]
    for j in range(units):
        z = sigmoid(x_z[j] + h_z[j])
        n = tanh(fused(sigmoid(x_r[j] + h_r[j]), h_n[j], x_n[j]))
        hidden[j] = fused(z, hidden[j] - n, n)


@compiled
def update(kernel: int, x: Any, h: Any, state: Any, units: int, padded: int) -> None:
    """One time step of one layer of one row; ``kernel`` comes from ``kernel_number``."""
    if kernel == 0:
        rnn_tanh(x, h, state, units, padded)
    elif kernel == 1:
        rnn_relu(x, h, state, units, padded)
    elif kernel == 2:
        lstm(x, h, state, units, padded)
    elif kernel == 3:
        gru(x, h, state, units, padded)


_KERNELS: Final = ("rnn_tanh", "rnn_relu", "lstm", "gru")  # by their numbers in ``update``


def kernel_number(cell: CellDescriptor) -> int:
    """The number of a cell's kernel in ``update``."""
    return _KERNELS.index(cell.kernel)
