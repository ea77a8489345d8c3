"""A network's weights in the layout that the compiled loops read.

The product of the first layer's input weights with each embedding is stored as a table,
because the input of a character network has only V values. Every gate is padded to
whole vector registers.

Shapes: V symbols, L layers, H hidden (P when padded to 16), K inputs, G gates,
N = G·P padded to 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import stepping
from .kernels.llvm import LANES
from .kernels.products import PackedMatrix, pack, padded
from .kernels.vectors import GROUP
from .network import CharNetwork

Floats = NDArray[np.float32]


def _spread_gates(matrix: Floats, gates: int, columns: int) -> Floats:
    """[G·H, K] -> [N, columns]: each gate padded to P units, all gates together to N outputs."""
    units = len(matrix) // gates
    width = padded(units, LANES)
    spread = np.zeros((gates, width, columns), dtype=np.float32)
    spread[:, :units, : matrix.shape[1]] = matrix.reshape(gates, units, -1)
    whole = np.zeros((padded(gates * width, GROUP), columns), dtype=np.float32)
    whole[: gates * width] = spread.reshape(gates * width, columns)
    return whole


def pack_network(network: CharNetwork, *, integers: bool) -> stepping.Weights:
    """Pack a network's weights as int8 or float32, the first layer's input weights as a table."""
    config = network.config
    gates, width = config.gates, padded(config.hidden_size, LANES)
    hidden: list[PackedMatrix] = []
    upper: list[PackedMatrix] = []
    table_VN = np.zeros((0, 0), dtype=np.float32)
    for layer in range(config.layers):
        weights = [tensor.numpy() for tensor in network.cell_weights(layer)]
        from_input, from_hidden = weights[0], weights[1]
        bias_x, bias_h = (_spread_gates(b[:, None], gates, 1)[:, 0] for b in weights[2:])
        hidden.append(pack(_spread_gates(from_hidden, gates, width), bias_h, integers=integers))
        if layer == 0:
            embedding_VE = network.embedding.weight.detach().float().cpu().numpy()
            products = _spread_gates(from_input @ embedding_VE.T, gates, len(embedding_VE))
            table_VN = np.ascontiguousarray((products + bias_x[:, None]).T)
        else:
            upper.append(pack(_spread_gates(from_input, gates, width), bias_x, integers=integers))
    output_VH = network.output.weight.detach().float().cpu().numpy()
    biases = network.output.bias.detach().float().cpu().numpy()
    output = pack(
        _spread_gates(output_VH, 1, width),
        _spread_gates(biases[:, None], 1, 1)[:, 0],
        integers=integers,
    )
    return stepping.Weights(
        table_VN, _stacked(hidden), _stacked(upper or hidden[:0], hidden[0]), _alone(output)
    )


def _alone(matrix: PackedMatrix) -> tuple[Any, Any, Any, Any]:
    return matrix.panels, matrix.scales_N, matrix.offsets_N, matrix.biases_N


def _stacked(
    matrices: Sequence[PackedMatrix], like: PackedMatrix | None = None
) -> tuple[Any, Any, Any, Any]:
    """One array [layers, …] per part; for no layers, shaped like ``like``."""
    if not matrices:
        assert like is not None
        parts = _alone(like)
        return tuple(np.zeros((0, *part.shape), dtype=part.dtype) for part in parts)  # type: ignore[return-value]
    return tuple(np.stack(parts) for parts in zip(*map(_alone, matrices), strict=True))  # type: ignore[return-value]
