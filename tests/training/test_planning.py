"""What is left open is settled, limits that were asked for hold alone, memory is estimated."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.catalog.datasets import Datasets
from app.charlm.corpus.format import CorpusFormat
from app.charlm.network_config import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.charlm.sizing import CorpusFacts
from app.database.session import Database
from app.errors import InvalidInput
from app.store.blobs import BlobStore
from app.training.planning import (
    SHAPE,
    TrainingPlan,
    Wishes,
    check_memory,
    complete,
    corpus_facts,
    memory_needed,
    most_symbols,
    plan_training,
)
from app.training.prepare import prepare
from tests.jobs.making import WORDS

FACTS = CorpusFacts("lines", 1_000_000, 60, 8.0, 15)


def planned(training: dict[str, Any], network: dict[str, Any] | None = None) -> TrainingPlan:
    return complete(FACTS, network or {}, training, speed=1e10, seed=3)


@pytest.mark.parametrize(
    ("asked", "budget", "epochs", "steps"),
    [
        ({}, 180.0, 60, None),
        ({"budget_seconds": 20}, 20, 60, None),
        ({"max_steps": 7}, None, None, 7),
        ({"max_epochs": 2}, None, 2, None),
        ({"max_epochs": 2, "max_steps": 7}, None, 2, 7),
        ({"budget_seconds": 20, "max_epochs": 2}, 20, 2, None),
        ({"budget_seconds": 20, "max_steps": 7}, 20, None, 7),
        ({"budget_seconds": None, "max_steps": None}, 180.0, 60, None),
    ],
)
def test_limits(
    asked: dict[str, Any], budget: float | None, epochs: int | None, steps: int | None
) -> None:
    training = planned(asked).training
    found = (training.budget_seconds, training.max_epochs, training.max_steps)
    assert found == (budget, epochs, steps)


def test_what_was_asked_for_stands() -> None:
    found = planned({"batch_size": 3, "max_steps": 5}, {"cell": "gru", "hidden_size": 17})
    assert (found.network.cell, found.network.hidden_size) == ("gru", 17)
    assert (found.training.batch_size, found.training.seed) == (3, 3)
    assert found.asked == ("cell", "hidden_size", "batch_size", "max_steps")
    assert not {name for each in found.chosen for name in each.fields} & set(found.asked)


def test_a_shape_comes_from_the_base_and_its_symbols_stay() -> None:
    shape = {**asdict(planned({}, {"layers": 3}).network), "symbols": 5000}
    base = SimpleNamespace(id="names@1", card=shape)
    text = SimpleNamespace(
        format="lines", characters=10_000, records=1000, symbols=5000, typical_length=9
    )
    plan = plan_training(text, Wishes({"layers": 3}), speed=1e10, base=base)
    assert (plan.inherited, plan.asked, plan.network.layers) == (SHAPE, (), 3)
    assert not {name for each in plan.chosen for name in each.fields} & set(SHAPE)
    assert most_symbols(text, base) == 10_000
    with pytest.raises(InvalidInput, match=r"layers must be 3, as in the base_model names@1"):
        plan_training(text, Wishes({"layers": 2}), speed=1e10, base=base)


def test_half_of_a_group_keeps_its_reason() -> None:
    whole = {name for each in planned({}).chosen for name in each.fields}
    half = planned({}, {"layers": 1}).chosen
    assert {name for each in half for name in each.fields} == whole - {"layers"}
    (size,) = [each for each in half if "hidden_size" in each.fields]
    assert "weights" in size.reason


@pytest.mark.parametrize(
    ("network", "training", "param"),
    [
        ({"hiden": 3}, {}, "network.hiden"),
        ({}, {"learning": 3}, "training.learning"),
        ({"layers": 99}, {}, "network.layers"),
        ({}, {"window": 0, "max_steps": 1}, "training.window"),
    ],
)
def test_what_cannot_be_is_named(
    network: dict[str, Any], training: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        planned(training, network)
    assert caught.value.param == param


def test_memory_grows_with_everything() -> None:
    network, training = NetworkConfig("lstm", 1, 256, 64), TrainingConfig(max_steps=1)
    base = memory_needed(network, training, 100, 10**6).total
    for other in (
        memory_needed(NetworkConfig("lstm", 2, 256, 64), training, 100, 10**6),
        memory_needed(NetworkConfig("lstm", 1, 512, 64), training, 100, 10**6),
        memory_needed(network, TrainingConfig(max_steps=1, batch_size=64), 100, 10**6),
        memory_needed(network, TrainingConfig(max_steps=1, window=128), 100, 10**6),
        memory_needed(network, training, 5000, 10**6),
        memory_needed(network, training, 100, 10**7),
    ):
        assert other.total > base
    smaller = memory_needed(network, TrainingConfig(max_steps=1, optimizer="sgd"), 100, 10**6)
    assert smaller.total < base
    huge = memory_needed(network, training, 100, 10**9)
    assert huge == memory_needed(network, training, 100, 10**10)  # its ids lie in a file


def test_what_fits_is_let_pass() -> None:
    memory = memory_needed(NetworkConfig(), TrainingConfig(max_steps=1), 100, 10**6)
    check_memory(memory, memory.total)
    with pytest.raises(InvalidInput):
        check_memory(memory, memory.total - 1)


@pytest.mark.parametrize("format", ["lines", "text"])
def test_a_job_and_the_command_line_plan_the_same_text_alike(
    sqlite_database: Database, tmp_path: Path, format: CorpusFormat
) -> None:
    """Fails when one of them measures what the other estimates."""
    file = tmp_path / "words.txt"
    file.write_text("\n".join(WORDS * 3))
    wishes = Wishes(validation_fraction=0.2, test_fraction=0.0)
    read = prepare(file, format=format, validation_fraction=0.2, test_fraction=0.0).profile
    stored = Datasets(sqlite_database, BlobStore(str(tmp_path / "texts"))).add(file, "w", format)
    plans = [plan_training(text, wishes, speed=1e10) for text in (read, stored)]
    assert plans[0] == plans[1]
    assert corpus_facts(read, wishes).train_characters == round(len(file.read_text()) * 0.8)
