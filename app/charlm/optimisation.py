"""The two losses, and the optimizers that update the weights.

Takes logits and targets, or a network and a ``TrainingConfig``. Knows nothing of
text, time or the order of steps.

Shapes: N predicted positions (rows × time steps), V symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .corpus.windows import IGNORED
from .network import CharNetwork
from .schedule import LossName, TrainingConfig

_BETAS: Final = (0.9, 0.99)


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Mean of −log softmax(logits)[target] over the targets that count, in nats."""
    return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED)


def squared_error(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Mean of Σ_v (softmax(logits)_v − [v = target])² over the targets that count.

    The Brier score (Brier 1950): between 0 and 2.
    """
    counted_N = targets_N != IGNORED
    # Subtract 1 at the targets instead of building a one-hot matrix: V may be tens of thousands.
    minus_one_N1 = -torch.ones_like(logits_NV[:, :1])
    errors_NV = logits_NV.softmax(dim=1).scatter_add(
        1, targets_N.clamp(min=0)[:, None], minus_one_N1
    )
    return (errors_NV.square().sum(dim=1) * counted_N).sum() / counted_N.sum()


LOSSES: Final[dict[LossName, Callable[[Tensor, Tensor], Tensor]]] = {
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
}


def make_optimizer(network: CharNetwork, config: TrainingConfig) -> torch.optim.Optimizer:
    """sgd (θ ← θ − α ∂L/∂θ), adam (Kingma and Ba 2015) or adamw (Loshchilov and Hutter 2019)."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=config.learning_rate)
    if config.optimizer == "adam":
        return torch.optim.Adam(trained, lr=config.learning_rate, betas=_BETAS, fused=True)
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        betas=_BETAS,
        weight_decay=config.weight_decay,
        fused=True,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer, as ``<weight>.<name>``, copied to the CPU."""
    return {
        f"{index}.{name}": value.detach().cpu().clone()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of ``optimizer_tensors``; moves tensors to the devices of the weights."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
