"""The cells of recurrent networks: one descriptor each, all that other modules know of a cell.

A new cell needs an entry here, with its name in ``Cell``, and in ``kernels/cells.py`` a compiled
function, its branch in ``update`` and its name in ``_KERNELS``. If ``torch.nn`` has no class that
trains it, it also needs layers in ``network.py``. Knows neither torch nor numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Cell = Literal["rnn", "lstm", "gru"]
Activation = Literal["tanh", "relu"]


@dataclass(frozen=True)
class CellDescriptor:
    """One cell's properties.

    ``gates`` names the groups of H rows in each layer's weights [G·H, …], in the
    order in which torch stores them.
    """

    name: Cell
    kernel: str  #: the compiled function for one time step, in ``kernels/cells.py``
    torch_layers: str  #: the class in ``torch.nn`` that trains it
    gates: tuple[str, ...]
    states: int = 1  #: values per unit; 2: hidden state, then cell state
    bounded: bool = True  #: the hidden state stays within ±1, so int8 can round it
    activation: Activation | None = None  #: the activation, where a cell has several
    hidden_bias: bool = True  #: whether its second bias is trained
    rate: float = 1.0  #: factor on the chosen learning rate


_PLAIN_RATE: Final = 0.25  # rnn has no gates to keep its gradients small

CELLS: Final = (
    # h_t = f(W_hh h + W_xh x + b_h) has one bias.
    CellDescriptor(
        "rnn", "rnn_tanh", "RNN", ("new",), activation="tanh", hidden_bias=False, rate=_PLAIN_RATE
    ),
    CellDescriptor(
        "rnn", "rnn_relu", "RNN", ("new",), activation="relu", hidden_bias=False, rate=_PLAIN_RATE,
        bounded=False,
    ),
    CellDescriptor("lstm", "lstm", "LSTM", ("input", "forget", "cell", "output"), states=2),
    CellDescriptor("gru", "gru", "GRU", ("reset", "update", "new")),
)  # fmt: skip


def cell_of(name: Cell, activation: Activation = "tanh") -> CellDescriptor:
    """The descriptor of a cell; only ``rnn`` uses ``activation``."""
    return next(c for c in CELLS if c.name == name and c.activation in (None, activation))
