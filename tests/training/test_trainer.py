"""From a text file to an artifact: every value settled, measured as stored, warm starts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from app.charlm.checkpoint import Checkpoint
from app.charlm.evaluation import evaluate
from app.errors import InvalidInput
from app.store.artifact import Artifact, Lineage, read, write
from app.training.planning import Base, Wishes, plan_training
from app.training.prepare import prepare
from app.training.trainer import Trainer

WORDS = ["".join(w) for w in itertools.product("bdk", "ae", "lmn", "io", "rst")]
TINY = {"hidden_size": 16, "embedding_size": 8}
STEPS = {"max_steps": 30, "batch_size": 8, "learning_rate": 0.02, "warmup_steps": 3}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS))
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(" ".join(WORDS[i : i + 9]) for i in range(0, 108, 9)) * 3)
    return path


@dataclass(frozen=True)
class Published:
    """A version that was never put into a store."""

    artifact: Artifact

    @property
    def id(self) -> str:
        return "words@1"

    @property
    def card(self) -> dict[str, Any]:
        return self.artifact.card.summary()


def ready(path: Path, wishes: Wishes, base: Artifact | None = None) -> Trainer:
    """Prepare and plan, as the command line does."""
    prepared = prepare(
        path,
        validation_fraction=wishes.validation_fraction,
        test_fraction=wishes.test_fraction,
        known=base.vocabulary if base else None,
    )
    version: Base | None = Published(base) if base else None
    return Trainer(prepared, plan_training(prepared.profile, wishes, speed=1e10, base=version))


def planned(path: Path, training: dict[str, Any] | None = None, **wishes: Any) -> Trainer:
    fractions = {"validation_fraction": 0.2, "test_fraction": 0.2}
    wanted: dict[str, Any] = {"network": TINY, **fractions, **wishes}
    return ready(path, Wishes(**{"training": STEPS | (training or {}), **wanted}))


def trained(run: Trainer, **how: Any) -> Artifact:
    for _ in run.train(**how):
        pass
    return run.finish(lineage=Lineage(corpus="words of this test"))


def test_lines_become_a_whole_artifact(lines: Path) -> None:
    run = planned(lines)
    artifact = trained(run)
    card = artifact.card
    assert read(write(artifact)).card.weights_sha256 == card.weights_sha256
    assert (card.cell, card.hidden_size, card.corpus_format) == ("lstm", 16, "lines")
    assert card.dataset_sha256 == run.prepared.profile.sha256
    assert card.trained_characters > 1000
    assert card.seed == 1
    assert card.validation is not None
    assert card.test is not None
    assert card.verbatim_copy_rate is not None
    assert card.serving_precision in ("int8", "float32")
    assert artifact.calibration is not None
    assert card.lineage.corpus == "words of this test"
    assert card.lineage.parameters["steps"] == 30
    assert {"torch", "numpy"} <= set(card.libraries)


def test_the_card_speaks_of_the_weights_in_the_file(lines: Path) -> None:
    run = planned(lines)
    artifact = read(write(trained(run)))
    measures = evaluate(
        artifact.network(), run.prepared.corpus.evaluation_windows("validation", 8, 64)
    )
    assert measures is not None
    assert artifact.card.validation is not None
    assert artifact.card.validation.nats == pytest.approx(measures.nats, abs=1e-6)


def test_a_running_text(text: Path) -> None:
    run = planned(text, test_fraction=0.0)
    card = trained(run).card
    assert card.corpus_format == "text"
    assert card.test is None
    assert run.sample(1)
    assert 100 < len(run.written()) <= 200
    assert run.written() == run.written()


def test_what_it_writes_of_lines_is_eight_of_them(lines: Path) -> None:
    run = planned(lines)
    trained(run)
    assert len(run.written().split("\n")) == 8


def test_what_is_not_asked_for_is_chosen_and_shown(lines: Path) -> None:
    run = planned(lines)
    assert {each.fields for each in run.plan.chosen} == {("layers",), ("dropout",), ("window",)}
    assert set(run.plan.asked) == {*TINY, *STEPS}
    assert run.plan.training.batch_size == 8
    assert run.plan.training.budget_seconds is None, "the end was given as steps"
    plain = ready(lines, Wishes()).plan
    assert plain.training.budget_seconds == 180
    assert plain.training.max_epochs


def test_a_budget_alone_leaves_the_cap_on_passes(lines: Path) -> None:
    run = planned(lines, {"max_steps": None, "budget_seconds": 5.0})
    assert run.plan.training.budget_seconds == 5.0
    assert run.plan.training.max_epochs
    assert run.plan.training.max_steps is None


@pytest.mark.parametrize("group", ["network", "training"])
def test_an_unknown_wish_is_named(lines: Path, group: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        planned(lines, **{group: {"colour": 1}})
    assert caught.value.param == f"{group}.colour"


def test_a_warm_start_knows_what_it_knew(lines: Path, tmp_path: Path) -> None:
    base = trained(planned(lines))
    wider = tmp_path / "wider.txt"
    wider.write_text("\n".join([*WORDS, *(word.replace("a", "ä") for word in WORDS)]))
    run = ready(wider, Wishes(training=STEPS | {"max_steps": 1}), base)
    assert run.prepared.vocabulary.characters == base.vocabulary.characters + "ä"
    assert run.plan.network.hidden_size == 16
    next(run.train(base=base))
    assert run.training is not None
    network = run.training.network
    old = base.network()
    assert len(network.embedding.weight) == len(old.embedding.weight) + 1
    drift = network.cell_weights(0).hidden - old.cell_weights(0).hidden
    assert drift.abs().max() < 0.1


def test_a_warm_start_of_another_shape_is_refused(lines: Path) -> None:
    base = trained(planned(lines))
    with pytest.raises(InvalidInput) as caught:
        ready(lines, Wishes(network={"hidden_size": 32}, training=STEPS), base)
    assert (caught.value.param, caught.value.code) == (
        "network.hidden_size",
        "base_model_differs",
    )
    run = planned(lines, network={**TINY, "hidden_size": 32})  # whoever planned without the base
    with pytest.raises(InvalidInput, match="another shape"):
        next(run.train(base=base))


def test_taken_up_from_a_checkpoint_it_gives_the_same_file(lines: Path) -> None:
    whole = trained(planned(lines))
    first = planned(lines)
    for progress in first.train():
        if progress.step == 11:
            break
    assert first.training is not None
    saved = first.training.checkpoint()
    again = planned(lines)
    resumed = trained(again, checkpoint=Checkpoint.restore(saved.tensors(), saved.facts()))
    assert resumed.card.weights_sha256 == whole.card.weights_sha256
    assert resumed.card.trained_characters == whole.card.trained_characters
    assert all(torch.equal(resumed.weights[k], whole.weights[k]) for k in whole.weights)
