"""What may be asked for: every field checked, and the field named that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from app.charlm.network_config import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.errors import InvalidInput
from app.jobs.spec import JobSpec, in_order, planned_document
from app.training.planning import TrainingPlan

WHOLE: dict[str, Any] = {
    "model": "my-names",
    "dataset": "ds_01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "network": {
        "cell": "lstm", "layers": 2, "hidden_size": 256, "embedding_size": 64, "dropout": 0.1,
    },
    "training": {
        "budget_seconds": 180, "max_epochs": None, "max_steps": None,
        "batch_size": 32, "window": 64,
        "optimizer": "adamw", "learning_rate": 0.004, "schedule": "linear",
        "clip_norm": 1.0, "loss": "cross_entropy",
        "validation_fraction": 0.05, "test_fraction": 0.05, "patience": None,
        "checkpoint_every_seconds": 30, "seed": 1,
    },
    "base_model": None, "priority": 0, "max_attempts": 3, "tags": {},
}  # fmt: skip


def test_the_documented_job_is_one() -> None:
    spec = JobSpec.parse(WHOLE)
    assert spec.dataset_id == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert spec.training.budget_seconds == 180.0
    assert JobSpec.parse(spec.document()) == spec


def test_only_model_and_dataset_are_required() -> None:
    spec = JobSpec.parse({"model": "a", "dataset": "b", "network": None, "tags": None})
    assert spec.network.cell is None
    assert spec.max_attempts == 3


@pytest.mark.parametrize(
    ("where", "value", "code"),
    [
        ("model", "Not A Name", "invalid_name"),
        ("model", 3, "invalid_type"),
        ("dataset", "", "invalid_value"),
        ("dataset", "a\0", "invalid_value"),
        ("dataset", "\ud800", "invalid_value"),
        ("model", "\ud800", "invalid_name"),
        ("modle", "typo", "unknown_field"),
        ("network.layers", 0, "out_of_range"),
        ("network.layers", 16, "out_of_range"),
        ("network.layers", 2.0, "invalid_type"),
        ("network.layers", "2", "invalid_type"),
        ("network.layers", True, "invalid_type"),
        ("network.cell", "transformer", "invalid_value"),
        ("network.dropout", 1, "out_of_range"),
        ("network.hiden_size", 3, "unknown_field"),
        ("network", [], "invalid_type"),
        ("training.learning_rate", float("nan"), "out_of_range"),
        ("training.learning_rate", 0, "out_of_range"),
        ("training.budget_seconds", -1, "out_of_range"),
        ("training.budget_seconds", 1e9, "out_of_range"),
        ("training.max_steps", 0, "out_of_range"),
        ("training.validation_fraction", 0, "out_of_range"),
        ("training.test_fraction", 0.5, "out_of_range"),
        ("training.loss", "hinge", "invalid_value"),
        ("training.seed", -1, "out_of_range"),
        ("training.checkpoint_every_seconds", 0, "out_of_range"),
        ("priority", 1001, "out_of_range"),
        ("max_attempts", 0, "out_of_range"),
        ("base_model", "", "invalid_value"),
    ],
)
def test_the_wrong_field_is_named(where: str, value: object, code: str) -> None:
    document: dict[str, Any] = {"model": "a", "dataset": "b"}
    inner = document
    *path, last = where.split(".")
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    with pytest.raises(InvalidInput) as caught:
        JobSpec.parse(document)
    assert caught.value.param == where
    assert caught.value.code == code
    assert where.split(".")[-1] in caught.value.message or code == "invalid_name"


@pytest.mark.parametrize("missing", ["model", "dataset"])
def test_what_is_missing_is_named(missing: str) -> None:
    document = {"model": "a", "dataset": "b"}
    del document[missing]
    with pytest.raises(InvalidInput, match=f"{missing} is required") as caught:
        JobSpec.parse(document)
    assert caught.value.param == missing


@pytest.mark.parametrize(
    "tags",
    [{"a b": 1}, {"a": None}, {"a": [1]}, {"a": "x\0"}, {"a": "x\x85"}, {"": 1}, {"a": "\ud800"}],
)
def test_tags_are_short_and_plain(tags: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        JobSpec.parse({"model": "a", "dataset": "b", "tags": tags})
    assert caught.value.param is not None
    assert caught.value.param.startswith("tags")
    assert "constrained" not in caught.value.param


def test_tags_of_every_kind() -> None:
    tags = {"a": "text", "b": 1, "c": 1.5, "d": True}
    assert JobSpec.parse({"model": "a", "dataset": "b", "tags": tags}).tags == tags


@pytest.mark.parametrize("document", [None, [], "job", 3])
def test_a_job_is_an_object(document: object) -> None:
    with pytest.raises(InvalidInput):
        JobSpec.parse(document)


def test_equal_requests_have_equal_digests() -> None:
    short = JobSpec.parse({"dataset": "b", "model": "a"})
    assert short.digest() == JobSpec.parse({"model": "a", "dataset": "b", "priority": 0}).digest()
    assert short.digest() != JobSpec.parse({"model": "a", "dataset": "b", "priority": 1}).digest()


def test_a_planned_document_has_every_value_in_order() -> None:
    plan = TrainingPlan(NetworkConfig(), TrainingConfig(max_steps=5))
    spec = JobSpec.parse({"model": "a", "dataset": "b"})
    document = planned_document(spec, plan, "names@2")
    assert document["network"]["hidden_size"] == 128
    assert document["training"]["max_steps"] == 5
    assert document["training"]["checkpoint_every_seconds"] == 30.0
    assert (document["dataset"], document["base_model"]) == ("ds_b", "names@2")
    shuffled = dict(sorted(document.items())) | {
        "training": dict(sorted(document["training"].items()))
    }
    assert list(in_order(shuffled)) == list(WHOLE)
    assert list(in_order(shuffled)["training"]) == list(WHOLE["training"])
    assert JobSpec.parse(document).model == "a"
