"""Losses and optimizers against their formulas, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.charlm.corpus.windows import IGNORED
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.optimisation import cross_entropy, make_optimizer, squared_error
from app.charlm.schedule import OptimizerName, TrainingConfig

TARGETS = torch.tensor([0, 3, IGNORED, 1, IGNORED])


def test_losses_are_their_formulas() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    kept = [0, 1, 3]
    wanted = np.eye(4)[TARGETS[kept]]
    expected = float(((p[kept] - wanted) ** 2).sum(axis=1).mean())
    assert squared_error(logits, TARGETS).item() == pytest.approx(expected, rel=1e-12)
    expected = float(-np.log((p[kept] * wanted).sum(axis=1)).mean())
    assert cross_entropy(logits, TARGETS).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_of_the_losses_are_their_formulas() -> None:
    """Cross-entropy: (p − 1)/n. Squared error: 2 p_k (e_k − Σ_v p_v e_v)/n, e = p − 1."""
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    p = logits.detach().softmax(dim=1).numpy()
    counted = (TARGETS != IGNORED).numpy()[:, None]
    errors = (p - np.eye(4)[TARGETS.clamp(min=0)]) * counted
    torch.autograd.backward(cross_entropy(logits, TARGETS))
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), errors / 3, atol=1e-14)
    logits.grad = None
    torch.autograd.backward(squared_error(logits, TARGETS))
    expected = 2 * p * (errors - (p * errors).sum(axis=1, keepdims=True)) / 3
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_are_their_formulas(optimizer: OptimizerName) -> None:
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig("rnn", 1, 4, 3), symbols=5).double()
    config = TrainingConfig(max_steps=1, optimizer=optimizer, learning_rate=0.1)
    rule = make_optimizer(network, config)
    weights = network.output.weight.detach().numpy().copy()
    average, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, 5):
        rule.zero_grad()
        logits_BTV, _ = network(torch.ones(1, 3, dtype=torch.long), network.initial_state(1))
        torch.autograd.backward(cross_entropy(logits_BTV.flatten(0, 1), TARGETS[:3]))
        assert network.output.weight.grad is not None
        slope = network.output.weight.grad.numpy().copy()
        rule.step()
        if optimizer == "sgd":
            weights = weights - 0.1 * slope
        else:
            average = 0.9 * average + 0.1 * slope
            square = 0.99 * square + 0.01 * slope**2
            if optimizer == "adamw":
                weights = weights * (1 - 0.1 * 0.01)
            corrected = average / (1 - 0.9**step), np.sqrt(square / (1 - 0.99**step))
            weights = weights - 0.1 * corrected[0] / (corrected[1] + 1e-8)
        np.testing.assert_allclose(network.output.weight.detach().numpy(), weights, atol=1e-12)
