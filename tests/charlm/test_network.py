"""Each cell against its formulas, written out in float64 numpy: values and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.charlm.cells import CELLS, Activation, Cell
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.errors import InvalidInput

Array = NDArray[np.float64]
Weights = dict[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def rnn_step(
    x: Array, h: Array, w: Weights, layer: int, f: Callable[[Array], Array] = np.tanh
) -> Array:
    """h_t = f(W_hh h_{t-1} + W_xh x_t + b_h)."""
    w_xh, w_hh = w[f"recurrent.weight_ih_l{layer}"], w[f"recurrent.weight_hh_l{layer}"]
    return f(h @ w_hh.T + x @ w_xh.T + w[f"recurrent.bias_ih_l{layer}"])


def lstm_step(x: Array, state: Array, w: Weights, layer: int) -> Array:
    size = state.shape[1] // 2
    h, c = state[:, :size], state[:, size:]
    gates = (
        x @ w[f"recurrent.weight_ih_l{layer}"].T
        + w[f"recurrent.bias_ih_l{layer}"]
        + h @ w[f"recurrent.weight_hh_l{layer}"].T
        + w[f"recurrent.bias_hh_l{layer}"]
    )
    i, f, g, o = np.split(gates, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate((sigmoid(o) * np.tanh(c), c), axis=1)


def gru_step(x: Array, h: Array, w: Weights, layer: int) -> Array:
    from_x = x @ w[f"recurrent.weight_ih_l{layer}"].T + w[f"recurrent.bias_ih_l{layer}"]
    from_h = h @ w[f"recurrent.weight_hh_l{layer}"].T + w[f"recurrent.bias_hh_l{layer}"]
    (xr, xz, xn), (hr, hz, hn) = np.split(from_x, 3, axis=1), np.split(from_h, 3, axis=1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return (1 - z) * n + z * h


def formula_logits(
    config: NetworkConfig, w: Weights, chars_BT: NDArray[np.int64], state_BLS: Array
) -> tuple[Array, Array]:
    """The whole network, one time step after another."""
    state_BLS, logits = state_BLS.copy(), []
    for t in range(chars_BT.shape[1]):
        x = w["embedding.weight"][chars_BT[:, t]]
        for layer in range(config.layers):
            h = state_BLS[:, layer]
            if config.cell == "rnn":
                relu = config.activation == "relu"
                f = (lambda a: np.maximum(a, 0)) if relu else np.tanh
                h = rnn_step(x, h, w, layer, f)
            else:
                h = {"lstm": lstm_step, "gru": gru_step}[config.cell](x, h, w, layer)
            state_BLS[:, layer] = h
            x = h[:, : config.hidden_size]
        output = w["embedding.weight" if config.tied else "output.weight"]
        logits.append(x @ output.T + w["output.bias"])
    return np.stack(logits, axis=1), state_BLS


def cross_entropy(logits_BTV: Array, targets_BT: NDArray[np.int64]) -> float:
    top = logits_BTV.max(axis=2, keepdims=True)
    logprobs = logits_BTV - top - np.log(np.exp(logits_BTV - top).sum(axis=2, keepdims=True))
    return float(-np.take_along_axis(logprobs, targets_BT[..., None], axis=2).mean())


KINDS: list[tuple[Cell, Activation]] = [(c.name, c.activation or "tanh") for c in CELLS]


def build(
    cell: Cell, activation: Activation, *, layers: int, tied: bool = False
) -> tuple[CharNetwork, Weights]:
    torch.manual_seed(layers)
    config = NetworkConfig(cell, layers, 3, 3 if tied else 2, 0.0, activation, tied)
    network = CharNetwork(config, symbols=5).double()
    with torch.no_grad():  # biases start at zero or one: make every term of a formula count
        for weight in network.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    return network, {k: v.numpy().copy() for k, v in network.state_dict().items()}


CHARS = np.array([[1, 4, 2, 0], [1, 3, 3, 2]])
TARGETS = np.array([[4, 2, 0, 1], [3, 3, 2, 1]])


@pytest.mark.parametrize(("cell", "activation"), KINDS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_forward_is_the_formula(cell: Cell, activation: Activation, layers: int) -> None:
    network, weights = build(cell, activation, layers=layers)
    state = 0.5 * torch.randn(2, layers, network.config.state_size, dtype=torch.float64)
    logits, after = network(torch.from_numpy(CHARS), state)
    expected, expected_after = formula_logits(network.config, weights, CHARS, state.numpy())
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(after.detach().numpy(), expected_after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("cell", "activation"), KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_the_formula(cell: Cell, activation: Activation, tied: bool) -> None:
    """Central differences of the numpy formula against autograd, every single weight."""
    network, weights = build(cell, activation, layers=2, tied=tied)
    state = np.zeros((2, 2, network.config.state_size))
    logits, _ = network(torch.from_numpy(CHARS), torch.from_numpy(state))
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 5), torch.from_numpy(TARGETS).reshape(-1)
    )
    torch.autograd.backward(loss)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None
        for place in itertools.product(*map(range, parameter.shape)):
            losses = []
            for sign in (1, -1):
                moved = {**weights, name: weights[name].copy()}
                moved[name][place] += sign * 1e-6
                losses.append(
                    cross_entropy(formula_logits(network.config, moved, CHARS, state)[0], TARGETS)
                )
            slope = (losses[0] - losses[1]) / 2e-6
            assert parameter.grad[place].item() == pytest.approx(slope, abs=2e-8), (name, place)


def test_reading_in_pieces_equals_reading_at_once() -> None:
    network, _ = build("lstm", "tanh", layers=2)
    chars = torch.from_numpy(CHARS)
    whole, end = network(chars, network.initial_state(2))
    first, middle = network(chars[:, :1], network.initial_state(2))
    rest, end_of_rest = network(chars[:, 1:], middle)
    torch.testing.assert_close(torch.cat((first, rest), dim=1), whole)
    torch.testing.assert_close(end_of_rest, end)


def test_initial_values_are_sensible() -> None:
    network = CharNetwork(NetworkConfig("lstm", 2, 8, 4), symbols=7)
    for layer in range(2):
        weights = network.cell_weights(layer)
        assert weights.input_bias.reshape(4, 8)[1].tolist() == [1.0] * 8  # forget gate
        assert weights.input_bias.reshape(4, 8)[[0, 2, 3]].abs().max() == 0
        for gate in weights.hidden.reshape(4, 8, 8):
            torch.testing.assert_close(gate @ gate.T, torch.eye(8))


@pytest.mark.parametrize(("cell", "activation"), KINDS)
def test_the_declared_shapes_are_the_real_ones(cell: Cell, activation: Activation) -> None:
    for tied in (False, True):
        config = NetworkConfig(cell, 2, 6, 6, 0.1, activation, tied)
        network = CharNetwork(config, symbols=9)
        shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
        if tied:
            assert network.output.weight is network.embedding.weight
            del shapes["output.weight"]
        assert shapes == config.weight_shapes(9)
        assert config.parameters(9) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cell", "transformer"),
        ("activation", "gelu"),
        ("layers", 0),
        ("hidden_size", 10**6),
        ("embedding_size", 0),
        ("dropout", 1.0),
        ("tied", True),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        NetworkConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.param == f"network.{field}"
