"""The three recurrent networks: rnn, lstm and gru, with one state tensor.

Takes ids and a state, gives logits for the next symbol and the state after.
Knows nothing of text, files or how it is trained.

Shapes: B rows, T time steps, V symbols, E embedding, L layers, H hidden,
S state width (H for rnn and gru; 2H for lstm: hidden, then cell), G gates
(rnn 1; lstm 4: input, forget, cell, output; gru 3: reset, update, new).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from app.errors import InvalidInput

Cell = Literal["rnn", "lstm", "gru"]
Activation = Literal["tanh", "relu"]

GATES: Final[dict[str, int]] = {"rnn": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network; with ``symbols`` it determines every weight's shape.

    ``tied`` uses the embedding as the output weights too, which needs
    ``embedding_size == hidden_size`` (Press and Wolf 2017). ``activation`` is
    read by ``rnn`` only.

    Raises InvalidInput, naming the field.
    """

    cell: Cell = "lstm"
    layers: int = 1
    hidden_size: int = 128
    embedding_size: int = 32
    dropout: float = 0.0
    activation: Activation = "tanh"
    tied: bool = False

    def __post_init__(self) -> None:
        _require(self.cell in GATES, "cell", "one of rnn, lstm, gru")
        _require(self.activation in ("tanh", "relu"), "activation", "tanh or relu")
        _require(1 <= self.layers <= 15, "layers", "from 1 to 15")  # 64 tensors fit a model file
        _require(1 <= self.hidden_size <= 16384, "hidden_size", "from 1 to 16384")
        _require(1 <= self.embedding_size <= 16384, "embedding_size", "from 1 to 16384")
        _require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1")
        _require(
            not self.tied or self.embedding_size == self.hidden_size,
            "tied",
            "false unless embedding_size equals hidden_size",
        )

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def state_size(self) -> int:
        """S, the numbers a layer remembers for one row."""
        return 2 * self.hidden_size if self.cell == "lstm" else self.hidden_size

    def weight_shapes(self, symbols: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained tensor, in the order they are stored."""
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
        """The number of trained numbers."""
        return sum(
            shape[0] * (shape[1] if len(shape) > 1 else 1)
            for shape in self.weight_shapes(symbols).values()
        )


def _require(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise InvalidInput(
            f"network.{field} must be {expected}.", param=f"network.{field}", code="out_of_range"
        )


class CellWeights(NamedTuple):
    """One layer's float32 weights with torch's order of gates."""

    input: Tensor  # [G·H, E or H]
    hidden: Tensor  # [G·H, H]
    input_bias: Tensor  # [G·H]
    hidden_bias: Tensor  # [G·H]; separate because gru multiplies part of it by a gate


class CharNetwork(nn.Module):
    """Embedding, recurrent layers, output layer.

    ``symbols`` is V, the size of the vocabulary. The recurrent layers are
    torch's own (their products run in one fused call); the formulas are in
    ``docs/how-it-works.md`` and the tests hold each cell against them.
    """

    def __init__(self, config: NetworkConfig, symbols: int) -> None:
        super().__init__()
        self.config = config
        self.symbols = symbols
        # Given its weights it draws none; on the meta device drawing imports half of torch.
        embedded = torch.empty(symbols, config.embedding_size)
        self.embedding = nn.Embedding(symbols, config.embedding_size, _weight=embedded)
        self.recurrent = _recurrent_layers(config)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, symbols)
        if config.tied:
            self.output.weight = self.embedding.weight
        self._initialise()

    def initial_state(self, rows: int) -> Tensor:
        """The state of ``rows`` rows that have read nothing: zeros [rows, L, S]."""
        config = self.config
        return self.output.bias.new_zeros(rows, config.layers, config.state_size)

    def forward(self, chars_BT: Tensor, state_BLS: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] for the symbol after each of ``chars_BT``, and the state after.

        Nothing of ``state_BLS`` is changed; gradients flow through it unless
        it was detached.
        """
        inputs_BTE = self.embedding(chars_BT)
        state_LBS = state_BLS.transpose(0, 1).contiguous()
        if self.config.cell == "lstm":
            size = self.config.hidden_size
            before = (state_LBS[..., :size].contiguous(), state_LBS[..., size:].contiguous())
            outputs_BTH, (hidden, cell) = self.recurrent(inputs_BTE, before)
            state_LBS = torch.cat((hidden, cell), dim=2)
        else:
            outputs_BTH, state_LBS = self.recurrent(inputs_BTE, state_LBS)
        return self.output(self.dropout(outputs_BTH)), state_LBS.transpose(0, 1)

    def cell_weights(self, layer: int) -> CellWeights:
        """The weights of one layer as float32 on the CPU, detached."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return CellWeights(
            *(getattr(self.recurrent, f"{name}_l{layer}").detach().float().cpu() for name in names)
        )

    @torch.no_grad()
    def _initialise(self) -> None:
        """Orthogonal recurrence, Glorot inputs, forget bias 1 (Jozefowicz et al. 2015)."""
        if self.output.bias.is_meta:
            return  # the weights will be given
        size = self.config.hidden_size
        nn.init.normal_(self.embedding.weight, std=self.config.embedding_size**-0.5)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        for name, weight in self.recurrent.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weight)
                if self.config.cell == "lstm" and name.startswith("bias_ih"):
                    weight[size : 2 * size] = 1.0
                continue
            fill = nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_
            for first in range(0, len(weight), size):
                fill(weight[first : first + size])


def _recurrent_layers(config: NetworkConfig) -> nn.RNNBase:
    between = config.dropout if config.layers > 1 else 0.0
    if config.cell == "rnn":
        layers: nn.RNNBase = nn.RNN(
            config.embedding_size,
            config.hidden_size,
            config.layers,
            nonlinearity=config.activation,
            batch_first=True,
            dropout=between,
        )
        # h_t = f(W_hh h + W_xh x + b_h) has one bias: the second stays zero.
        for layer in range(config.layers):
            getattr(layers, f"bias_hh_l{layer}").requires_grad_(False)
        return layers
    kind = nn.LSTM if config.cell == "lstm" else nn.GRU
    return kind(
        config.embedding_size,
        config.hidden_size,
        config.layers,
        batch_first=True,
        dropout=between,
    )
