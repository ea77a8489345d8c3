"""Training: it learns, repeats, resumes bit for bit, keeps to its budget, and fails clearly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.charlm.checkpoint import Checkpoint
from app.charlm.corpus.corpus import Corpus
from app.charlm.corpus.lines import LineCorpus
from app.charlm.corpus.text import TextCorpus
from app.charlm.evaluation import evaluate
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.schedule import LossName, OptimizerName, TrainingConfig
from app.charlm.training import Progress, Training
from app.charlm.vocabulary import Vocabulary
from app.errors import InvalidInput, TrainingFailed
from tests.models import vocabulary_of

TEXT = "the cat sat on the mat and the dog sat on the log. " * 40


def text_corpus() -> TextCorpus:
    return TextCorpus(vocabulary_of(TEXT).encode(TEXT).astype(np.uint8))


def line_corpus() -> LineCorpus:
    words = ["".join(letters) for letters in itertools.product("abc", "de", "fgh", "ij", "klm")]
    ids = Vocabulary("\nabcdefghijklm").encode("\n".join(words)) - 1
    points = np.array([0, 0, *b"abcdefghijklm"], dtype=np.uint32)
    return LineCorpus(ids.astype(np.uint8), points)


def ticking(seconds: float = 0.01) -> Callable[[], float]:
    """A clock that goes on by a fixed time whenever it is read."""
    times = itertools.count()
    return lambda: next(times) * seconds


def fresh(dropout: float = 0.0, symbols: int = 30) -> CharNetwork:
    torch.manual_seed(0)
    return CharNetwork(NetworkConfig("lstm", 2, 16, 8, dropout), symbols)


SHORT = TrainingConfig(max_steps=12, batch_size=4, window=10, warmup_steps=3, evaluations=3)


def weights_after(training: Training) -> dict[str, Tensor]:
    for _ in training.run():
        pass
    return training.network.state_dict()


def equal_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("corpus", [text_corpus(), line_corpus()])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_learns(corpus: Corpus, loss: LossName, optimizer: OptimizerName) -> None:
    rate = 1.0 if optimizer == "sgd" else 0.02
    config = replace(
        SHORT, max_steps=150, loss=loss, optimizer=optimizer, learning_rate=rate, window=30
    )
    training = Training(fresh(), corpus, config, clock=ticking())
    progress = list(training.run())
    first, last = progress[0].train_loss, progress[-1].train_loss
    assert last < 0.95 * first, (first, last)
    measured = [p.validation for p in progress if p.validation]
    assert len(measured) >= 3
    assert training.best is not None
    assert training.best.nats == min(m.nats for m in measured)


def test_a_simple_rhythm_is_learnt_to_almost_nothing() -> None:
    ids = np.tile(np.array([2, 3, 4], dtype=np.uint8), 500)
    config = replace(SHORT, max_steps=120, learning_rate=0.02, window=20)
    training = Training(fresh(symbols=5), TextCorpus(ids), config, clock=ticking())
    last = list(training.run())[-1]
    assert last.validation is not None
    assert last.validation.nats < 0.05
    assert last.validation.accuracy > 0.97
    assert last.validation.perplexity == pytest.approx(math.exp(last.validation.nats))
    assert last.fraction == 1
    assert last.eta_seconds == 0


@pytest.mark.parametrize("corpus", [text_corpus(), line_corpus()])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_resumed_equals_uninterrupted_bit_for_bit(
    corpus: Corpus, optimizer: OptimizerName, stop_at: int
) -> None:
    config = replace(SHORT, optimizer=optimizer, seed=5)
    expected = weights_after(Training(fresh(0.3), corpus, config, clock=ticking()))
    first = Training(fresh(0.3), corpus, config, clock=ticking())
    for progress in first.run():
        if progress.step == stop_at:
            break
    saved = first.checkpoint()
    saved = Checkpoint.restore(saved.tensors(), saved.facts())
    torch.manual_seed(99)  # whatever happened in between
    second = Training(fresh(), corpus, config, clock=ticking(), checkpoint=saved)
    second.network.dropout.p = second.network.recurrent.dropout = 0.3
    assert equal_bits(weights_after(second), expected)
    assert second.step == 12


def test_evaluating_does_not_disturb_training() -> None:
    results = [
        weights_after(
            Training(fresh(0.3), text_corpus(), replace(SHORT, evaluations=n), clock=ticking())
        )
        for n in (1, 12)
    ]
    assert equal_bits(*results)


def test_another_seed_is_another_training() -> None:
    results = [
        weights_after(Training(fresh(0.3), text_corpus(), replace(SHORT, seed=n), clock=ticking()))
        for n in (1, 2)
    ]
    assert not equal_bits(*results)


def test_a_budget_becomes_steps_that_can_be_repeated() -> None:
    budget = replace(SHORT, max_steps=None, budget_seconds=10.0)
    training = Training(fresh(0.2), text_corpus(), budget, clock=ticking(0.05))
    progress = list(training.run())
    assert progress[0].steps is None
    left = [each.eta_seconds for each in progress]
    assert left[0] == pytest.approx(9.85)
    assert all(each is not None and each < 10 for each in left), "never more than the budget"
    assert training.config.plan
    assert progress[-1].step == progress[-1].steps
    replay = replace(budget, budget_seconds=None, plan=training.config.plan)
    again = Training(fresh(0.2), text_corpus(), replay, clock=ticking(3.0))
    assert equal_bits(weights_after(again), training.network.state_dict())


def slowing(after: int) -> Callable[[], float]:
    def clock() -> Iterator[float]:
        now = 0.0
        for reading in itertools.count():
            now += 0.01 if reading < after else 0.05
            yield now

    readings = clock()
    return lambda: next(readings)


def test_the_plan_is_corrected_when_the_machine_slows_down() -> None:
    config = replace(SHORT, max_steps=None, budget_seconds=20.0, evaluations=5)
    training = Training(fresh(), text_corpus(), config, clock=slowing(after=600))
    progress = list(training.run())
    assert len(training.config.plan) > 1
    first, last = training.config.plan[0][1], training.config.plan[-1][1]
    assert last < first
    assert progress[-1].step == last


def test_a_budget_and_a_number_of_steps_both_hold() -> None:
    config = replace(SHORT, budget_seconds=1000.0)
    training = Training(fresh(), text_corpus(), config, clock=ticking(5.0))
    assert list(training.run())[-1].step == 12


def test_epochs_are_counted() -> None:
    config = replace(SHORT, max_steps=None, max_epochs=2)
    training = Training(fresh(), line_corpus(), config, clock=ticking())
    progress = list(training.run())
    assert training.epoch == 2
    assert progress[-1].fraction == 1
    assert progress[-1].step == len(progress)


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    config = replace(
        SHORT, max_steps=200, evaluations=100, patience=2, optimizer="sgd", learning_rate=1e-9
    )
    training = Training(fresh(), text_corpus(), config, clock=ticking())
    assert list(training.run())[-1].step < 20


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights() -> None:
    config = replace(SHORT, optimizer="sgd", learning_rate=0.1)
    training = Training(fresh(), text_corpus(), config, clock=ticking())
    with pytest.raises(TrainingFailed, match="lower learning rate"):  # noqa: PT012
        for progress in training.run():
            if progress.step == 6:
                with torch.no_grad():
                    training.network.output.bias[0] = math.nan
    assert training.best is not None
    assert all(w.isfinite().all() for w in training.best.weights.values())


def test_measures_equal_one_single_pass() -> None:
    ids = vocabulary_of(TEXT).encode(TEXT * 4).astype(np.uint8)
    corpus, network = TextCorpus(ids), fresh()
    many = evaluate(network, corpus.evaluation_windows("train", 4, 64))
    single = evaluate(network, corpus.evaluation_windows("train", 1, 10_000))
    assert many is not None
    assert single is not None
    assert many.characters == single.characters == corpus.characters("train")
    assert many.nats == pytest.approx(single.nats, abs=1e-5)
    assert many.bits_per_character == pytest.approx(many.nats / math.log(2))
    assert evaluate(network, []) is None


def test_unfinished_checkpoints_are_refused() -> None:
    saved = Training(fresh(), text_corpus(), SHORT, clock=ticking()).checkpoint()
    assert saved.best_nats is None
    with pytest.raises(InvalidInput, match="incomplete"):
        Checkpoint.restore({}, saved.facts())
    facts = saved.facts()
    del facts["step"]
    with pytest.raises(InvalidInput, match="incomplete"):
        Checkpoint.restore(saved.tensors(), facts)


def test_progress_is_plain() -> None:
    progress = next(Training(fresh(), text_corpus(), SHORT, clock=ticking()).run())
    assert isinstance(progress, Progress)
    assert (progress.step, progress.steps, progress.epoch) == (1, 12, 0)
    assert progress.gradient_norm > 0


def test_epochs_end_the_rate_too_even_beside_a_budget() -> None:
    config = replace(SHORT, max_steps=None, max_epochs=2, budget_seconds=1e6)
    training = Training(fresh(), line_corpus(), config, clock=ticking())
    progress = list(training.run())
    assert training.epoch == 2
    assert progress[-1].fraction == 1
    assert progress[-1].learning_rate < 0.1 * config.learning_rate


def test_characters_are_counted_once_also_when_resumed() -> None:
    first = Training(fresh(), line_corpus(), SHORT, clock=ticking())
    for progress in first.run():
        if progress.step == 5:
            break
    second = Training(fresh(), line_corpus(), SHORT, clock=ticking(), checkpoint=first.checkpoint())
    weights_after(second)
    whole = Training(fresh(), line_corpus(), SHORT, clock=ticking())
    weights_after(whole)
    assert second.trained_characters == whole.trained_characters > 0


def test_a_training_stopped_early_can_be_measured_and_kept() -> None:
    training = Training(fresh(), text_corpus(), replace(SHORT, evaluations=1), clock=ticking())
    next(training.run())
    assert training.best is None
    measures = training.measure()
    assert training.best is not None
    assert training.best.nats == measures.nats
    assert training.best.step == 1


class Greedy(CharNetwork):
    """Asks for more memory than there is."""

    def forward(self, chars_BT: Tensor, state_BLS: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(chars_BT, state_BLS) if not self.training else self.ask()

    def ask(self) -> tuple[Tensor, Tensor]:
        return torch.empty(2**50), torch.empty(0)


def test_too_little_memory_is_said_plainly() -> None:
    greedy = Greedy(NetworkConfig(hidden_size=8), 30)
    training = Training(greedy, text_corpus(), SHORT, clock=ticking())
    with pytest.raises(TrainingFailed, match="smaller") as caught:
        next(training.run())
    assert caught.value.code == "out_of_memory"


def test_other_errors_of_torch_stay_what_they_are() -> None:
    too_few = CharNetwork(NetworkConfig(hidden_size=8), 3)
    with pytest.raises(IndexError):
        next(Training(too_few, text_corpus(), SHORT, clock=ticking()).run())
    wrong = CharNetwork(NetworkConfig(hidden_size=8), 30)
    wrong.output = torch.nn.Linear(9, 30)
    with pytest.raises(RuntimeError, match="shapes"):
        next(Training(wrong, text_corpus(), SHORT, clock=ticking()).run())


def test_dear_evaluations_do_not_eat_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first evaluation makes ready what later ones use; on a busy machine it takes seconds."""
    now = [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    corpus = text_corpus()
    windows = corpus.evaluation_windows

    def dear(*args: Any, **kwargs: Any) -> Any:
        spend(2.0)
        return windows(*args, **kwargs)

    monkeypatch.setattr(corpus, "evaluation_windows", dear)
    config = replace(SHORT, max_steps=None, budget_seconds=30.0, evaluations=20)
    training = Training(fresh(), corpus, config, clock=lambda: now[0])
    evaluations = 0
    for progress in training.run():
        spend(0.1)
        training._pace.training += 0.1  # the clock stands still within a step
        evaluations += progress.validation is not None
    assert 2 <= evaluations <= 5
    assert 150 <= training.step <= 300
    assert now[0] < 1.25 * 30
