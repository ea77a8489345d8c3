"""Measure this machine's training speed. Shapes: B rows, T time steps, V symbols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from .network import CharNetwork
from .network_config import NetworkConfig
from .optimisation import cross_entropy
from .sizing import operations

# Sizes of a typical training.
_NETWORK: Final = NetworkConfig("lstm", 1, 384, 64)
_SYMBOLS: Final = 64
_ROWS, _STEPS = 16, 64


def measure_speed(clock: Callable[[], float], device: torch.device, seconds: float = 1.0) -> float:
    """Training operations per second on this machine, measured for about ``seconds``."""
    network = CharNetwork(_NETWORK, _SYMBOLS).to(device).train()
    chars_BT = torch.zeros(_ROWS, _STEPS, dtype=torch.long, device=device)
    state_BLS = network.initial_state(_ROWS)

    def step() -> None:
        logits_BTV, _ = network(chars_BT, state_BLS)
        torch.autograd.backward(cross_entropy(logits_BTV.flatten(0, 1), chars_BT.flatten()))
        network.zero_grad()
        network.output.bias.sum().item()  # wait for a GPU to finish

    step()
    began, steps = clock(), 0
    while steps == 0 or clock() - began < seconds:
        step()
        steps += 1
    work = steps * chars_BT.numel() * operations(_NETWORK, _SYMBOLS)
    return work / max(clock() - began, 1e-9)
