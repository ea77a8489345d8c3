"""Training: truncated backpropagation through time, one step at a time.

Takes a network, a corpus and a ``TrainingConfig``; ``Training.run`` yields a
``Progress`` after every step and changes the network in place. The clock is passed in as
a callable. All randomness comes from the seed: (seed, step) determines what dropout
drops, (seed, epoch) the order of the text. So evaluating or pausing changes nothing, and
a training resumed from a ``Checkpoint`` gives the same bits as one that was never
interrupted. Knows nothing of files or jobs.

Shapes: B rows, T time steps, V symbols, L layers, S state width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from ..errors import TrainingFailed
from .checkpoint import Checkpoint
from .corpus.corpus import Corpus
from .corpus.windows import Window, Windows
from .evaluation import evaluate
from .measures import Measures
from .network import CharNetwork
from .optimisation import LOSSES, make_optimizer, optimizer_tensors, restore_optimizer
from .schedule import Pace, TrainingConfig, with_plan

_EVALUATION_ROWS: Final = 32
_LEAST_EVALUATION_WINDOW: Final = 64  # shorter windows would only take longer
_EVALUATING: Final = 0.2  # the share of a budget that evaluations may take
_PLAN_TOLERANCE: Final = 0.04  # a plan that is off by a smaller share is kept
_SLOWER: Final = 4  # after a failure, suggest this fraction of the learning rate: a quarter
_GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: keeps the seeds of two trainings apart


@dataclass(frozen=True)
class Progress:
    """The state of a training after a step; losses in nats (the squared error has no unit)."""

    step: int
    steps: int | None  # the planned number; None until the speed is known
    epoch: int
    fraction: float  # of the whole training, 0..1
    characters_per_second: float
    train_loss: float
    learning_rate: float
    gradient_norm: float  # before clipping
    eta_seconds: float | None
    validation: Measures | None  # at evaluations only


@dataclass(frozen=True)
class Best:
    """The weights with the lowest validation loss so far, on the CPU."""

    weights: dict[str, Tensor]
    nats: float
    step: int


class Training:
    """One training of one network. Call ``run``; read the attributes between steps.

    ``clock`` returns seconds from any origin. ``checkpoint`` resumes an earlier training:
    everything but the budget's clock continues as if never stopped. ``config`` is updated
    with the plan and with ``max_epochs`` as a number of steps.
    """

    def __init__(
        self,
        network: CharNetwork,
        corpus: Corpus,
        config: TrainingConfig,
        *,
        clock: Callable[[], float],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.network = network
        self.corpus = corpus
        self.config = config
        self.best: Best | None = None
        self.step = 0
        self.epoch = 0
        self.trained_characters = 0  # predicted in training, including repetitions
        self._place = 0  # windows of this epoch already read
        self._elapsed = 0.0  # seconds of the budget used so far
        self._since_best = 0
        self._clock = clock
        self._optimizer = make_optimizer(network, config)
        self._state_BLS = network.initial_state(0)
        self._pace = Pace()
        self._loss = LOSSES[config.loss]
        if config.max_epochs is not None:
            # As steps, so that the rate reaches zero when the last epoch ends.
            steps = max(1, config.max_epochs * len(self._epoch_windows()))
            self.config = replace(config, max_steps=min(steps, config.max_steps or steps))
        if checkpoint is not None:
            self._take_up(checkpoint)

    def run(self) -> Iterator[Progress]:
        """Train to the end, one step between two yields.

        Raises TrainingFailed if the loss is no longer finite or memory runs out; ``best``
        then still holds the best weights measured so far, if any.
        """
        started = self._clock() - self._elapsed
        while True:
            windows = self._epoch_windows()
            while self._place < len(windows):
                if self._finished():
                    return
                rate = self.config.rate(self.step, self.config.planned_steps(self.step))
                with _memory_shortage_told():
                    loss, norm = self._timed_step(windows[self._place], rate)
                    validation = self.measure() if self._evaluation_due() else None
                    self._elapsed = self._clock() - started
                    self._plan()
                yield self._progress(loss, rate, norm, validation)
            self.epoch, self._place = self.epoch + 1, 0

    def measure(self) -> Measures:
        """Measure the current weights on a bounded part of the validation split.

        Stores them in ``best`` if they are the best so far; call it before keeping the
        result of a training that was stopped early. The training continues as if it had
        not been called.
        """
        began = self._clock()
        windows = self.corpus.evaluation_windows(
            "validation",
            _EVALUATION_ROWS,
            max(_LEAST_EVALUATION_WINDOW, self.config.window),
            self.config.evaluation_characters,
        )
        measures = evaluate(self.network, windows)
        assert measures is not None, "a validation split is never empty"
        if self.best is None or measures.nats < self.best.nats:
            self.best = Best(_copied(self.network), measures.nats, self.step)
            self._since_best = 0
        else:
            self._since_best += 1
        self._pace.evaluating += self._clock() - began
        return measures

    def checkpoint(self) -> Checkpoint:
        """A copy of everything needed to continue from here; call it between two steps."""
        best = self.best
        return Checkpoint(
            weights=_copied(self.network),
            optimizer=optimizer_tensors(self._optimizer),
            best_weights=best.weights if best else {},
            state_BLS=self._state_BLS.detach().cpu().clone(),
            best_nats=best.nats if best else None,
            best_step=best.step if best else 0,
            since_best=self._since_best,
            step=self.step,
            epoch=self.epoch,
            place=self._place,
            elapsed_seconds=self._elapsed,
            trained_characters=self.trained_characters,
            plan=self.config.plan,
        )

    def _take_up(self, checkpoint: Checkpoint) -> None:
        self.network.load_state_dict(checkpoint.weights)
        device = self.network.output.bias.device
        restore_optimizer(self._optimizer, checkpoint.optimizer)
        self._state_BLS = checkpoint.state_BLS.clone().to(device)
        self.step, self.epoch = checkpoint.step, checkpoint.epoch
        self._place, self._elapsed = checkpoint.place, checkpoint.elapsed_seconds
        self._since_best = checkpoint.since_best
        self.trained_characters = checkpoint.trained_characters
        self.config = replace(self.config, plan=checkpoint.plan)
        if checkpoint.best_nats is not None:
            self.best = Best(checkpoint.best_weights, checkpoint.best_nats, checkpoint.best_step)

    def _epoch_windows(self) -> Windows:
        config = self.config
        return self.corpus.training_windows(
            self.epoch, config.batch_size, config.window, config.seed
        )

    def _finished(self) -> bool:
        config = self.config
        steps = config.planned_steps(self.step)
        return (
            (steps is not None and self.step >= steps)
            or (config.max_steps is not None and self.step >= config.max_steps)
            or (config.max_epochs is not None and self.epoch >= config.max_epochs)
            or (config.patience is not None and self._since_best >= config.patience)
        )

    def _timed_step(self, window: Window, rate: float) -> tuple[float, float]:
        """Take one step and record it; return (loss, gradient norm)."""
        began = self._clock()
        loss, norm = self._take_step(window, rate)
        self._pace.record(self._clock() - began, window.characters)
        self.trained_characters += window.characters
        self.step, self._place = self.step + 1, self._place + 1
        return loss, norm

    def _take_step(self, window: Window, rate: float) -> tuple[float, float]:
        """One step of truncated backpropagation: the state is carried, its gradient is not."""
        self.network.train()
        # Dropout draws from torch's global generator. Seed it by the step, so that what is
        # dropped depends on (seed, step) and on no earlier draw.
        torch.manual_seed((self.config.seed * _GOLDEN + self.step) % 2**63)
        device = self.network.output.bias.device
        chars_BT = torch.from_numpy(window.inputs_BT).to(device)
        targets_BT = torch.from_numpy(window.targets_BT).to(device)
        state_BLS = self.network.reset_rows(self._state_BLS, window.reset_B)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        logits_BTV, state_BLS = self.network(chars_BT, state_BLS)
        loss = self._loss(logits_BTV.flatten(0, 1), targets_BT.flatten())
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        value, norm_value = loss.item(), norm.item()
        if not (math.isfinite(value) and math.isfinite(norm_value)):
            raise _not_finite(self.step + 1, rate)
        self._optimizer.step()
        self._state_BLS = state_BLS.detach()
        return value, norm_value

    def _evaluation_due(self) -> bool:
        steps = self.config.planned_steps(self.step)
        if steps is None:
            return False
        if self.step == steps:
            return True
        budget, every = self.config.budget_seconds, max(1, steps // self.config.evaluations)
        affordable = budget is None or self._pace.evaluating <= _EVALUATING * self._elapsed
        return affordable and self.step % every == 0

    def _plan(self) -> None:
        """Plan the number of steps that fits the budget, or correct it now and then."""
        config, pace, step = self.config, self._pace, self.step
        budget, steps = config.budget_seconds, config.planned_steps(step)
        if budget is None:
            return
        left = budget - self._elapsed
        if not config.plan:
            if pace.is_known(self._elapsed, budget):
                self.measure()  # to learn what evaluations cost
                # The first evaluation warms up caches, so its cost is only a rough guide.
                reserved = min(pace.evaluating * (1 + config.evaluations), _EVALUATING * left)
                fitting = pace.fitting(step, left - reserved)
                fitting = min(fitting, config.max_steps or fitting)
                self.config = with_plan(config, step, fitting)
        elif steps is not None and pace.correction_due(step, steps):
            done = max(1, round(config.evaluations * step / steps))
            reserved = pace.evaluating / done * (config.evaluations - done)
            reserved = min(reserved, _EVALUATING * left)
            fitting = pace.fitting(step, left - reserved)
            fitting = min(fitting, config.max_steps or fitting)
            if abs(fitting - steps) > _PLAN_TOLERANCE * steps:
                self.config = with_plan(config, step, fitting)

    def _progress(
        self, loss: float, rate: float, norm: float, validation: Measures | None
    ) -> Progress:
        steps = self.config.planned_steps(self.step)
        fraction = min(1.0, self.step / steps) if steps else 0.0
        budget = self.config.budget_seconds
        eta = self._elapsed * (1 - fraction) / fraction if fraction else budget
        if budget is not None and eta is not None:  # the first steps are slower than the rest
            eta = min(eta, max(0.0, budget - self._elapsed))
        speed = self._pace.characters_per_second
        return Progress(
            self.step, steps, self.epoch, fraction, speed, loss, rate, norm, eta, validation
        )


@contextmanager
def _memory_shortage_told() -> Iterator[None]:
    """Turn out-of-memory errors of numpy and torch into TrainingFailed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = str(error)
        if not isinstance(error, MemoryError) and "memory" not in message:
            raise
        raise TrainingFailed(
            "There was not enough memory for a training step. Train again with a smaller "
            "batch_size, window or hidden_size.",
            code="out_of_memory",
        ) from error


def _not_finite(step: int, rate: float) -> TrainingFailed:
    return TrainingFailed(
        f"The loss or its gradient was not finite at step {step} (learning rate {rate:g}). Train "
        f"again with a lower learning rate, for example {rate / _SLOWER:.2g}.",
        code="loss_not_finite",
    )


def _copied(network: CharNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
