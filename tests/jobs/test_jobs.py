"""Submitting: what is left out is chosen, what cannot be done is refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.errors import InvalidInput, NotFound, UnknownModel
from app.jobs.checkpoints.retention import Retention
from app.jobs.spec import JobSpec
from app.store.card import Card
from app.training.machine import machine_speed, memory_limit, training_threads
from tests.jobs.making import Place
from tests.models import tiny_artifact
from tests.test_runner import attempt


def test_model_and_dataset_are_enough(place: Place) -> None:
    job = place.jobs.submit(JobSpec.parse({"model": "m", "dataset": place.dataset.id}))
    assert job.spec["dataset"] == f"ds_{place.dataset.id}"
    assert job.spec["training"]["budget_seconds"] == 180.0
    values = [*job.spec["network"].values(), job.spec["training"]["batch_size"]]
    assert None not in values
    assert [each.fields for each in job.chosen] == [
        ("layers", "hidden_size"), ("embedding_size",), ("dropout",), ("batch_size", "window"),
        ("learning_rate",),
    ]  # fmt: skip
    assert all(each.reason for each in job.chosen)
    assert (job.progress, job.error, job.model_version, job.attempt) == (None, None, None, 0)


def test_what_is_asked_for_is_kept_and_not_explained(sqlite_place: Place) -> None:
    job = sqlite_place.submitted({"batch_size": 5, "optimizer": "sgd", "patience": 4})
    training = job.spec["training"]
    assert (training["batch_size"], training["optimizer"], training["patience"]) == (5, "sgd", 4)
    assert training["budget_seconds"] is None
    assert "batch_size" not in {field for each in job.chosen for field in each.fields}


def test_a_job_that_cannot_fit_is_refused_with_the_numbers(sqlite_place: Place) -> None:
    jobs = sqlite_place.jobs
    jobs._memory_limit = lambda: 600 << 20
    big = {"cell": "lstm", "layers": 4, "hidden_size": 4096}
    with pytest.raises(InvalidInput) as caught:
        jobs.submit(sqlite_place.spec(network=big))
    assert (caught.value.code, caught.value.param) == ("does_not_fit", "network.hidden_size")
    assert "GiB for weights and optimizer" in caught.value.message
    assert "600 MiB" in caught.value.message
    with pytest.raises(InvalidInput) as caught:
        jobs.submit(sqlite_place.spec({"batch_size": 4096, "window": 4096}))
    assert caught.value.param == "training.batch_size"
    assert jobs.counts() == {}


def test_what_does_not_exist_is_named(place: Place) -> None:
    with pytest.raises(NotFound) as caught:
        place.jobs.submit(JobSpec.parse({"model": "m", "dataset": "ds_nothing"}))
    assert caught.value.code == "dataset_not_found"
    with pytest.raises(UnknownModel) as unknown:
        place.submitted(base_model="nobody")
    assert unknown.value.param == "base_model"
    with pytest.raises(InvalidInput) as wrong:
        place.jobs.list(state="nowhere")
    assert wrong.value.param == "state"


def test_a_base_model_brings_its_shape(sqlite_place: Place) -> None:
    place = sqlite_place
    place.registry.publish("base", tiny_artifact())
    card = Card.model_validate(place.registry.resolve("base").card | {"vocabulary": "abc"})
    job = place.submitted(base_model="base", network={"dropout": 0.25})
    assert job.spec["network"] == {
        "cell": card.cell, "activation": "tanh", "layers": 1,
        "hidden_size": card.hidden_size, "embedding_size": card.embedding_size, "dropout": 0.25,
    }  # fmt: skip
    assert job.base_model == job.spec["base_model"] == "base@1"
    with pytest.raises(InvalidInput) as caught:
        place.submitted(base_model="base@1", network={"hidden_size": 5})
    assert caught.value.param == "network.hidden_size"


def test_a_change_is_told(sqlite_place: Place) -> None:
    told: list[int] = []
    jobs = sqlite_place.jobs
    jobs._on_change = lambda: told.append(1)
    job = jobs.submit(sqlite_place.spec())
    jobs.pause(job.id)
    jobs.resume(job.id)
    jobs.cancel(job.id)
    assert len(told) == 4


def test_deleting_a_job_leaves_its_model(place: Place) -> None:
    job = place.submitted()
    attempt(place).run()
    assert place.checkpoints.sizes()
    place.jobs.delete(job.id)
    assert place.checkpoints.sizes() == {}
    assert place.registry.resolve("words").version == 1
    with pytest.raises(NotFound):
        place.jobs.checkpoints(job.run_id)


def test_old_periodic_checkpoints_go_and_orphans_with_them(place: Place) -> None:
    job = place.submitted({"max_steps": 200, "checkpoint_every_seconds": 0.1})
    attempt(place).run()
    place.checkpoints.put(f"{job.run_id}/9-9-periodic.safetensors", b"its writer died")
    kinds = {c.kind for c in place.jobs.checkpoints(job.run_id)}
    Retention(place.database, place.checkpoints, days=1).apply()
    assert {c.kind for c in place.jobs.checkpoints(job.run_id)} == kinds
    assert len(place.checkpoints.sizes()) == len(place.jobs.checkpoints(job.run_id))
    Retention(place.database, place.checkpoints, days=0).apply()
    left = place.jobs.checkpoints(job.run_id)
    assert {c.kind for c in left} == kinds - {"periodic"}
    assert set(place.checkpoints.sizes()) == {c.uri for c in left}


def test_files_of_a_run_under_way_are_left_alone(place: Place) -> None:
    job = place.submitted()
    place.queue.claim("me", "local")
    key = f"{job.run_id}/1-1-periodic.safetensors"
    place.checkpoints.put(key, b"just being written")
    Retention(place.database, place.checkpoints, days=0).apply()
    assert list(place.checkpoints.sizes()) == [key]


def test_the_machine() -> None:
    assert machine_speed(1) == machine_speed(1) > 0
    assert memory_limit() > 1 << 28
    assert [training_threads(n, s) for n, s in ((1, 1), (2, 1), (8, 1), (8, 3))] == [1, 1, 7, 2]


def test_speed_is_that_of_this_machine_unless_given(sqlite_place: Place) -> None:
    slow = replace(sqlite_place).jobs
    slow._speed = lambda: 1e6
    fast = sqlite_place.jobs
    spec = JobSpec.parse({"model": "m", "dataset": sqlite_place.dataset.id})
    sizes = [jobs.submit(spec).spec["network"]["hidden_size"] for jobs in (slow, fast)]
    assert sizes[0] <= sizes[1]
