"""A checkpoint from which training can resume: tensors and a few numbers, nothing else.

``tensors`` and ``facts`` are written as safetensors and JSON, never as a pickle.
Everything is kept on the CPU, so a checkpoint can move between devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ..errors import InvalidInput
from .schedule import Plan

_GROUPS = ("weights", "optimizer", "best_weights")


@dataclass(frozen=True)
class Checkpoint:
    """A point between two training steps.

    ``place`` counts the windows of ``epoch`` already read; ``state_BLS`` is the
    carried recurrent state; ``since_best`` counts evaluations without
    improvement; ``elapsed_seconds`` is how much of the budget was used.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    state_BLS: Tensor
    best_nats: float | None
    best_step: int
    since_best: int
    step: int
    epoch: int
    place: int
    elapsed_seconds: float
    trained_characters: int
    plan: Plan

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a unique name."""
        named = {
            f"{group}/{name}": tensor.contiguous()
            for group in _GROUPS
            for name, tensor in getattr(self, group).items()
        }
        return {**named, "state_BLS": self.state_BLS.contiguous()}

    def facts(self) -> dict[str, Any]:
        """Everything else, as JSON."""
        tensors = {*_GROUPS, "state_BLS"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tensors}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Checkpoint:
        """The inverse of ``tensors`` and ``facts``; raises InvalidInput if anything is missing."""
        groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
        try:
            for key, tensor in tensors.items():
                if key != "state_BLS":
                    group, name = key.split("/", 1)
                    groups[group][name] = tensor
            plan = tuple((int(first), int(steps)) for first, steps in facts["plan"])
            return cls(**{**facts, **groups, "state_BLS": tensors["state_BLS"], "plan": plan})
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                "The checkpoint is incomplete. Train again, or resume from an older checkpoint.",
                code="invalid_checkpoint",
            ) from error
