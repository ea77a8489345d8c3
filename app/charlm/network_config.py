"""The shape of a network and its bounds. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from ..bounds import Bound, check_bounds, out_of_range
from .cells import Activation, Cell, CellDescriptor, cell_of

NETWORK_BOUNDS: Final[Mapping[str, Bound]] = {
    "layers": Bound(1, 15),  # their tensors stay within the 64 that a model file may have
    "hidden_size": Bound(1, 16_384),
    "embedding_size": Bound(1, 16_384),
    "dropout": Bound(0, 1, below_most=True),
}


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network; with ``symbols`` it determines every weight's shape.

    ``tied`` also uses the embedding as the output weights, which requires
    ``embedding_size == hidden_size`` (Press and Wolf 2017). Only ``rnn`` uses
    ``activation``. Raises InvalidInput, naming the field.
    """

    cell: Cell = "lstm"
    layers: int = 1
    hidden_size: int = 128
    embedding_size: int = 32
    dropout: float = 0.0
    activation: Activation = "tanh"
    tied: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("cell", Cell), ("activation", Activation)):
            if getattr(self, name) not in get_args(choices):
                raise out_of_range(f"network.{name}", f"one of {', '.join(get_args(choices))}")
        check_bounds(self, NETWORK_BOUNDS, group="network.")
        if self.tied and self.embedding_size != self.hidden_size:
            raise out_of_range("network.tied", "false unless embedding_size equals hidden_size")

    @property
    def descriptor(self) -> CellDescriptor:
        """The descriptor of this network's cell."""
        return cell_of(self.cell, self.activation)

    @property
    def gates(self) -> int:
        """G, the number of gates."""
        return len(self.descriptor.gates)

    @property
    def state_size(self) -> int:
        """S, the size of one layer's state for one row."""
        return self.descriptor.states * self.hidden_size

    @property
    def recurrent_weights(self) -> int:
        """The number of weights in the matrix products of the first layer."""
        return self.gates * self.hidden_size * (self.embedding_size + self.hidden_size)

    def weight_shapes(self, symbols: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained tensor, in storage order."""
        width = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (symbols, self.embedding_size)}
        for layer in range(self.layers):
            inputs = self.embedding_size if layer == 0 else self.hidden_size
            shapes[f"recurrent.weight_ih_l{layer}"] = (width, inputs)
            shapes[f"recurrent.weight_hh_l{layer}"] = (width, self.hidden_size)
            shapes[f"recurrent.bias_ih_l{layer}"] = (width,)
            shapes[f"recurrent.bias_hh_l{layer}"] = (width,)
        if not self.tied:
            shapes["output.weight"] = (symbols, self.hidden_size)
        shapes["output.bias"] = (symbols,)
        return shapes

    def parameters(self, symbols: int) -> int:
        """The number of trained parameters."""
        return sum(
            shape[0] * (shape[1] if len(shape) > 1 else 1)
            for shape in self.weight_shapes(symbols).values()
        )
