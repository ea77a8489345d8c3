"""How long to train and at which rate: the settings, and the plan made from a budget.

The rate depends on the step and on the planned number of steps, never on the clock. So a
training that was planned from seconds repeats exactly when given its recorded plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from ..bounds import EXACT, Bound, check_bounds, out_of_range
from ..errors import InvalidInput

OptimizerName = Literal["sgd", "adam", "adamw"]
LossName = Literal["cross_entropy", "squared_error"]
DEFAULT_BUDGET_SECONDS: Final = 180.0
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
ScheduleName = Literal["linear", "constant"]

Plan = tuple[tuple[int, int], ...]
"""Pairs (from step, planned number of steps); the last pair that applies counts."""

HELD: Final = 0.05
"""The share of all steps before the rate begins to fall.

Long enough to measure the machine's speed: steps taken before the number of steps is
known do not depend on it.
"""

_CORRECTED_AT: Final = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98)  # shares of the planned steps
_SHORT_WARMUP: Final = 10  # the warm-up takes at most 1/10 of the steps
_STEPS_BELIEVED: Final = 5  # measured before the plan is corrected, also after resuming
_STEPS_SKIPPED: Final = 2  # slow, because they build caches
_KNOWN_AFTER: Final = (0.04, 3.0)  # this share of the budget, at most these seconds
_LEAST_SECONDS: Final = 1e-9  # so that nothing is divided by 0


TRAINING_BOUNDS: Final[Mapping[str, Bound]] = {
    "budget_seconds": Bound(0.001, 30 * 86_400.0),  # 30 days
    "max_epochs": Bound(1, 1_000_000),
    "max_steps": Bound(1, 1_000_000_000),
    "batch_size": Bound(1, 65_536),
    "window": Bound(1, 65_536),
    "learning_rate": Bound(1e-9, 100.0),
    "weight_decay": Bound(0.0, 10.0),
    "warmup_steps": Bound(0, 1_000_000),
    "clip_norm": Bound(1e-9, 1e9),
    "patience": Bound(1, 1_000_000),
    "evaluations": Bound(1, 100_000),
    "evaluation_characters": Bound(1, 10**12),
    "seed": Bound(0, EXACT),
}


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a training besides network and corpus.

    At least one of ``budget_seconds``, ``max_epochs`` and ``max_steps`` is required,
    unless ``plan`` is given; the first limit reached ends the training. ``batch_size`` is B rows,
    ``window`` is T time steps of truncated backpropagation. ``patience`` counts
    evaluations without improvement. ``plan`` replays the recorded plan of an
    earlier training. Raises InvalidInput, naming the field.
    """

    budget_seconds: float | None = None
    max_epochs: int | None = None
    max_steps: int | None = None
    batch_size: int = 32
    window: int = 64
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 0.004
    weight_decay: float = 0.01
    schedule: ScheduleName = "linear"
    warmup_steps: int = 100
    clip_norm: float = 1.0
    loss: LossName = "cross_entropy"
    patience: int | None = None
    evaluations: int = 20
    evaluation_characters: int = 20_000
    seed: int = 1
    plan: Plan = ()

    def __post_init__(self) -> None:
        limits = (self.budget_seconds, self.max_epochs, self.max_steps, self.plan or None)
        if all(limit is None for limit in limits):
            raise InvalidInput(
                "Give training.budget_seconds, max_epochs or max_steps.",
                param="training.budget_seconds",
                code="out_of_range",
            )
        check_bounds(self, TRAINING_BOUNDS, group="training.")
        for name, choices in (
            ("optimizer", OptimizerName),
            ("loss", LossName),
            ("schedule", ScheduleName),
        ):
            if getattr(self, name) not in get_args(choices):
                raise out_of_range(f"training.{name}", f"one of {', '.join(get_args(choices))}")

    def planned_steps(self, step: int) -> int | None:
        """The planned number of steps as of ``step``; None while unknown."""
        known = [steps for first, steps in self.plan if first <= step]
        return known[-1] if known else self.max_steps

    def rate(self, step: int, steps: int | None) -> float:
        """The learning rate of step ``step`` (from 0) of ``steps``.

        Linear warm-up; the linear schedule later falls in a straight line to zero.
        """
        rate = self.learning_rate
        if self.warmup_steps:
            warmup = self.warmup_steps
            if steps:
                warmup = min(warmup, max(1, steps // _SHORT_WARMUP))
            rate *= min(1.0, (step + 1) / warmup)
        if self.schedule == "linear" and steps:
            rate *= max(0.0, min(1.0, (steps - step) / ((1 - HELD) * steps)))
        return rate


@dataclass
class Pace:
    """The time used so far, and the number of steps that a budget allows at that speed.

    The first steps of a process build caches and are not counted.
    """

    skipped: int = _STEPS_SKIPPED  # steps still to skip
    steps: int = 0
    characters: int = 0  # in ``steps``
    training: float = 0.0  # seconds of ``steps``
    evaluating: float = 0.0  # seconds of evaluations
    corrections: int = 0

    def record(self, seconds: float, characters: int) -> None:
        """Count one training step."""
        if self.skipped:
            self.skipped -= 1
            return
        self.steps += 1
        self.characters += characters
        self.training += seconds

    @property
    def characters_per_second(self) -> float:
        return self.characters / max(self.training, _LEAST_SECONDS) if self.steps else 0.0

    def is_known(self, elapsed: float, budget: float) -> bool:
        """Whether enough was measured to plan: 4 % of the budget, three seconds at most."""
        share, seconds = _KNOWN_AFTER
        return self.steps >= 1 and elapsed >= min(seconds, share * budget)

    def fitting(self, step: int, left: float) -> int:
        """The total number of steps if training continues for ``left`` seconds."""
        a_step = max(self.training, _LEAST_SECONDS) / self.steps
        return step + max(1, int(left / a_step))

    def correction_due(self, step: int, steps: int) -> bool:
        """Whether the plan should be compared with the clock; true a few times per training."""
        if self.steps < _STEPS_BELIEVED:
            return False
        reached = sum(step >= share * steps for share in _CORRECTED_AT)
        due = reached > self.corrections
        self.corrections = max(reached, self.corrections)
        return due


def with_plan(config: TrainingConfig, step: int, steps: int) -> TrainingConfig:
    """``config`` with one entry added to its plan."""
    return replace(config, plan=(*config.plan, (step, steps)))
