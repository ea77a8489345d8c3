"""The three recurrent networks: rnn, lstm and gru, with one state tensor.

Takes ids and a state, gives logits for the next symbol and the new state.
Knows nothing of text, files or training.

Shapes: B rows, T time steps, V symbols, E embedding, L layers, H hidden,
S state width and G gates (``cells.py`` defines both for each cell).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .network_config import NetworkConfig


class CellWeights(NamedTuple):
    """One layer's float32 weights, gates in torch's order."""

    input: Tensor  # [G·H, E or H]
    hidden: Tensor  # [G·H, H]
    input_bias: Tensor  # [G·H]
    hidden_bias: Tensor  # [G·H]; separate because gru multiplies part of it by a gate


class CharNetwork(nn.Module):
    """Embedding, recurrent layers, output layer.

    ``symbols`` is V, the size of the vocabulary. The recurrent layers are
    torch's own (their products run in one fused call). The formulas are in
    ``docs/how-it-works.md``; the tests check each cell against them.
    """

    def __init__(self, config: NetworkConfig, symbols: int) -> None:
        super().__init__()
        self.config = config
        self.symbols = symbols
        # Pass weights, so that none are drawn: drawing on the meta device imports half of torch.
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

    def reset_rows(self, state_BLS: Tensor, reset_B: NDArray[np.bool_]) -> Tensor:
        """The state with zeros in the rows where ``reset_B`` is true.

        Changes ``state_BLS`` in place, unless all rows are reset: then it makes a new
        state, whose number of rows may differ.
        """
        if reset_B.all():
            return self.initial_state(len(reset_B))
        if reset_B.any():
            state_BLS[torch.from_numpy(reset_B).to(state_BLS.device)] = 0
        return state_BLS

    def forward(self, chars_BT: Tensor, state_BLS: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] for the symbol after each of ``chars_BT``, and the new state.

        ``state_BLS`` is not changed; gradients flow through it unless it was detached.
        """
        inputs_BTE = self.embedding(chars_BT)
        state_LBS = state_BLS.transpose(0, 1).contiguous()
        if self.config.descriptor.states == 1:
            outputs_BTH, state_LBS = self.recurrent(inputs_BTE, state_LBS)
        else:
            parts = state_LBS.chunk(self.config.descriptor.states, dim=2)
            before = tuple(part.contiguous() for part in parts)
            outputs_BTH, after = self.recurrent(inputs_BTE, before)
            state_LBS = torch.cat(after, dim=2)
        return self.output(self.dropout(outputs_BTH)), state_LBS.transpose(0, 1)

    def cell_weights(self, layer: int) -> CellWeights:
        """The weights of one layer as float32 on the CPU, detached."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return CellWeights(
            *(getattr(self.recurrent, f"{name}_l{layer}").detach().float().cpu() for name in names)
        )

    @torch.no_grad()
    def _initialise(self) -> None:
        """Orthogonal recurrent weights, Glorot inputs, forget bias 1 (Jozefowicz et al. 2015)."""
        if self.output.bias.is_meta:
            return  # the weights come later
        size, gates = self.config.hidden_size, self.config.descriptor.gates
        nn.init.normal_(self.embedding.weight, std=self.config.embedding_size**-0.5)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        for name, weight in self.recurrent.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weight)
                if "forget" in gates and name.startswith("bias_ih"):
                    weight.view(-1, size)[gates.index("forget")] = 1.0
                continue
            fill = nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_
            for first in range(0, len(weight), size):
                fill(weight[first : first + size])


def _recurrent_layers(config: NetworkConfig) -> nn.RNNBase:
    cell = config.descriptor
    special: dict[str, Any] = {} if cell.activation is None else {"nonlinearity": cell.activation}
    layers: nn.RNNBase = getattr(nn, cell.torch_layers)(
        config.embedding_size,
        config.hidden_size,
        config.layers,
        batch_first=True,
        dropout=config.dropout if config.layers > 1 else 0.0,
        **special,
    )
    if not cell.hidden_bias:  # it stays zero
        for layer in range(config.layers):
            getattr(layers, f"bias_hh_l{layer}").requires_grad_(False)
    return layers
