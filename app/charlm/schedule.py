"""How long to train and at which rate: the settings, and the plan made from a budget.

The rate is a function of the step and of the planned number of steps, never of
the clock; so a run that was planned from seconds repeats exactly when the
recorded plan is given instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from .bounds import Bound, check_bounds, out_of_range

OptimizerName = Literal["sgd", "adam", "adamw"]
LossName = Literal["cross_entropy", "squared_error"]
ScheduleName = Literal["linear", "constant"]

Plan = tuple[tuple[int, int], ...]
"""(from step, planned number of steps) pairs; the last one that applies counts."""

HELD: Final = 0.05
"""The share of all steps before the rate begins to fall.

It is long enough to find out the machine's speed, so that what was done before
the number of steps is known does not depend on it.
"""

_CORRECTED_AT: Final = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98)
_SHORT_WARMUP: Final = 10  # the warm-up is at most this part of a short run: a tenth
_STEPS_BELIEVED: Final = 5  # measured before a correction is made, also after resuming


TRAINING_BOUNDS: Final[Mapping[str, Bound]] = {
    "budget_seconds": Bound(0.001, 30 * 86_400.0),  # a month
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
    "seed": Bound(0, 2**53),  # what every JSON reader keeps exactly
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that shapes a training besides network and corpus.

    At least one of ``budget_seconds``, ``max_epochs`` and ``max_steps`` is
    given; the first to be reached ends the training. ``batch_size`` is B rows,
    ``window`` is T time steps of truncated backpropagation. ``patience`` counts
    evaluations without improvement. ``plan`` replays the recorded plan of an
    earlier run. Raises InvalidInput, naming the field.
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
            raise out_of_range("training.budget_seconds", "given, or max_epochs or max_steps")
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

        Linear warm-up, then, with the linear schedule, straight down to zero.
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

    Seconds of ``steps`` training steps over ``characters``, and of the
    evaluations beside them. The first steps of a process build caches and are
    not counted.
    """

    skipped: int = 2
    steps: int = 0
    characters: int = 0
    training: float = 0.0
    evaluating: float = 0.0
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
        return self.characters / max(self.training, 1e-9) if self.steps else 0.0

    def is_known(self, elapsed: float, budget: float) -> bool:
        """Whether enough was measured to plan: 4 % of the budget, three seconds at most."""
        return self.steps >= 1 and elapsed >= min(3.0, 0.04 * budget)

    def fitting(self, step: int, left: float) -> int:
        """The number of steps in all if training goes on for ``left`` seconds."""
        a_step = max(self.training, 1e-9) / self.steps
        return step + max(1, int(left / a_step))

    def correction_due(self, step: int, steps: int) -> bool:
        """True a few times per run, when the plan should be compared with the clock."""
        if self.steps < _STEPS_BELIEVED:
            return False
        reached = sum(step >= share * steps for share in _CORRECTED_AT)
        due = reached > self.corrections
        self.corrections = max(reached, self.corrections)
        return due


def with_plan(config: TrainingConfig, step: int, steps: int) -> TrainingConfig:
    """``config`` with one more entry in its plan."""
    return replace(config, plan=(*config.plan, (step, steps)))
