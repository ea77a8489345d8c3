"""One attempt from beginning to end, in this process: what it publishes, and every way to stop.

How attempts survive being killed is in tests/survival.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from app import runner
from app.charlm.checkpoint import Checkpoint
from app.database.job_tables import JobRow
from app.errors import LeaseLost, StorageFailed
from app.jobs.checkpoints.files import load_checkpoint
from app.jobs.dispatcher_door import DispatcherDoor
from app.jobs.executors.command import CANNOT_STORE
from app.jobs.runner_door import RunnerDoor
from app.jobs.states import JobState
from app.jobs.times import Times
from app.jobs.values import Job
from app.runner import Attempt
from app.training.trainer import Trainer
from app.wiring.full import runner_environment
from tests.jobs.making import WORDS, Place, wait_for


def attempt(place: Place) -> Attempt:
    with place.database.session() as session:
        session.execute(update(JobRow).values(not_before=0))
    claim = place.queue.claim("test", "local")
    assert claim is not None
    return Attempt(place, claim, on_lost=lambda: None)


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Do something between two steps of the training, as if from outside."""
    train = Trainer.train

    def watched(self: Trainer, **how: Any) -> Iterator[Any]:
        for progress in train(self, **how):
            if progress.step == step:
                act()
            yield progress

    monkeypatch.setattr(Trainer, "train", watched)


def quick(place: Place) -> Place:
    """The same place with hearts that beat ten times a second."""
    return replace(place, times=Times(0.6))


def heard(place: Place, job: Job) -> None:
    """Wait until the job's runner has certainly read what is wanted: two heartbeats."""

    def renewed() -> int:
        (active,) = DispatcherDoor(place.database, place.times).active()
        return active.heartbeat or 0

    for _ in range(2):
        changed_from(renewed, renewed())


def changed_from(value: Callable[[], int], before: int) -> None:
    wait_for(lambda: value() != before)


def final_weights(place: Place, job: Job) -> Checkpoint:
    found = next(c for c in place.jobs.checkpoints(job.run_id) if c.kind == "final")
    return load_checkpoint(place.checkpoints, found)


def same(first: Checkpoint, second: Checkpoint) -> bool:
    tensors, others = first.tensors(), second.tensors()
    return set(tensors) == set(others) and all(
        tensors[name].equal(others[name]) for name in tensors
    )


def test_a_job_becomes_a_published_model(place: Place) -> None:
    job = place.submitted(tags={"why": "test"})
    attempt(place).run()
    done = place.jobs.get(job.id)
    assert (done.state, done.model_version) == (JobState.SUCCEEDED, "words@1")
    assert done.progress is not None
    assert (done.progress.step, done.progress.fraction) == (20, 1.0)
    assert done.progress.validation_bits_per_character is not None
    card = place.registry.open(place.registry.resolve("words")).card
    assert card.run_id == job.run_id
    assert card.dataset_sha256 == place.dataset.sha256
    assert (card.cell, card.hidden_size) == ("gru", 8)
    assert card.lineage.corpus == f"dataset ds_{place.dataset.id}"
    assert card.verbatim_copy_rate is not None
    names = {series.name: series for series in place.jobs.metrics(job.run_id)}
    assert set(names) == {
        "characters_per_second", "gradient_norm", "learning_rate", "memory", "train_loss",
        "validation_accuracy", "validation_bits_per_character", "validation_loss",
    }  # fmt: skip
    assert names["train_loss"].points[-1].step == 20
    assert place.events(job) == [
        "queued", "claimed", "started", "prepared", "measuring", "publishing", "succeeded",
    ]  # fmt: skip
    run = place.jobs.get_run(job.run_id)
    assert run.tags == {"why": "test"}
    assert "torch" in run.versions


def test_what_is_left_out_is_chosen_and_shown(sqlite_place: Place) -> None:
    place = sqlite_place
    job = place.submitted({"max_steps": 3}, network={})
    assert set(job.spec["network"]) == {
        "cell", "activation", "layers", "hidden_size", "embedding_size", "dropout",
    }  # fmt: skip
    assert None not in job.spec["network"].values()
    assert "hidden_size" in {field for each in job.chosen for field in each.fields}


def test_paused_and_resumed_it_is_as_if_never_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a checkpoint leaves anything out: the order of the text, the optimizer, dropout."""
    whole = place.submitted()
    attempt(place).run()
    job = place.submitted()
    runner = attempt(quick(place))

    def pause() -> None:
        place.jobs.pause(job.id)
        heard(place, job)

    with monkeypatch.context() as patch:
        at_step(patch, 7, pause)
        runner.run()
    paused = place.jobs.get(job.id)
    assert paused.state is JobState.PAUSED
    assert paused.progress is not None
    assert paused.progress.step == 7
    place.jobs.resume(job.id)
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED
    assert same(final_weights(place, whole), final_weights(place, job))
    assert "resumed" in place.events(job)
    versions = [place.registry.open(place.registry.resolve(f"words@{n}")) for n in (1, 2)]
    assert versions[0].card.weights_sha256 == versions[1].card.weights_sha256


def test_cancelled_on_the_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job = place.submitted({"max_steps": 100_000})
    at_step(monkeypatch, 5, lambda: place.jobs.cancel(job.id))
    attempt(quick(place)).run()
    assert place.jobs.get(job.id).state is JobState.CANCELLED
    assert place.registry.list() == []
    assert place.events(job)[-1] == "cancelled"


def test_asked_to_end_it_gives_the_job_back_with_a_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submitted(max_attempts=1)
    runner = attempt(place)
    with monkeypatch.context() as patch:
        at_step(patch, 6, runner.terminate)
        runner.run()
    assert place.jobs.get(job.id).state is JobState.QUEUED
    assert place.jobs.checkpoints(job.run_id)[0].step == 6
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED


def test_training_that_goes_wrong_says_what_helps(place: Place) -> None:
    job = place.submitted({"learning_rate": 100.0, "optimizer": "sgd", "clip_norm": 1e9})
    attempt(place).run()
    failed = place.jobs.get(job.id)
    assert failed.state in (JobState.FAILED, JobState.SUCCEEDED)
    if failed.error is not None:
        assert failed.error.code == "loss_not_finite"
        assert "lower learning rate" in failed.error.message


def test_a_changed_dataset_is_not_trained_on(sqlite_place: Place) -> None:
    place = sqlite_place
    job = place.submitted()
    (file,) = (place.settings.data_dir / "datasets").glob("*.txt")
    file.write_text("\n".join(reversed(WORDS)))
    attempt(place).run()
    failed = place.jobs.get(job.id)
    assert failed.error is not None
    assert failed.error.code == "dataset_changed"


def test_a_deleted_dataset_fails_the_job(place: Place) -> None:
    job = place.submitted()
    with place.database.session() as session:
        session.execute(text("DELETE FROM datasets"))
    attempt(place).run()
    failed = place.jobs.get(job.id)
    assert failed.error is not None
    assert failed.error.code == "dataset_not_found"


@pytest.mark.parametrize("away", ["datasets", "models"])
def test_a_file_that_is_away_puts_a_job_off(sqlite_place: Place, away: str) -> None:
    place = sqlite_place
    place.submitted()
    attempt(place).run()
    job = place.submitted({"max_steps": 5}, base_model="words")
    folder = place.settings.data_dir / away if away == "datasets" else Path(place.models.url)
    folder.rename(folder.with_name("elsewhere"))
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.QUEUED
    assert "is not in the" in place.jobs.events(job.id)[-1].message
    folder.with_name("elsewhere").rename(folder)
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED


def test_a_warm_start(place: Place) -> None:
    place.submitted()
    attempt(place).run()
    job = place.submitted({"max_steps": 5}, base_model="words", network={"dropout": 0.1})
    assert job.base_model == "words@1"
    assert job.spec["network"]["hidden_size"] == 8
    attempt(place).run()
    card = place.registry.open(place.registry.resolve("words@2")).card
    assert card.lineage.base_model == "words@1"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails without the digest: the damaged one would be taken up, or end every attempt."""
    place = sqlite_place
    whole = place.submitted()
    attempt(place).run()
    job = place.submitted({"checkpoint_every_seconds": 0.1})
    for step in (5, 9):
        runner = attempt(place)
        with monkeypatch.context() as patch:
            at_step(patch, step, runner.terminate)
            runner.run()
    newest, older = place.jobs.checkpoints(job.run_id)[:2]
    assert newest.step == 9
    path = place.settings.data_dir / "checkpoints" / newest.uri
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED
    dropped = [each for each in place.jobs.events(job.id) if each.type == "checkpoint_dropped"]
    assert len(dropped) == 1
    resumed = [each for each in place.jobs.events(job.id) if each.type == "resumed"]
    assert resumed[-1].payload["step"] == older.step < 9
    assert same(final_weights(place, whole), final_weights(place, job))


def test_a_run_that_has_published_only_ends_its_job(place: Place) -> None:
    job = place.submitted()
    attempt(place).run()
    with place.database.session() as session:
        session.execute(update(JobRow).values(state="queued", model_version=None))
    attempt(place).run()
    assert place.jobs.get(job.id).model_version == "words@1"
    assert len(place.registry.versions("words")) == 1


def test_a_lost_lease_ends_the_process(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps nobody but the heartbeat can notice; the next write of all is refused."""
    job = place.submitted({"max_steps": 1_000_000})
    with place.database.session() as session:
        session.execute(update(JobRow).values(not_before=0))
    claim = place.queue.claim("test", "local")
    assert claim is not None
    lost = threading.Event()
    runner = Attempt(quick(place), claim, on_lost=lost.set)

    def take_over() -> None:
        with place.database.session() as session:
            session.execute(update(JobRow).values(lease_token=99))
        assert lost.wait(60)
        runner.terminate()

    at_step(monkeypatch, 3, take_over)
    with pytest.raises(LeaseLost):
        runner.run()
    assert place.jobs.get(job.id).state is JobState.RUNNING
    assert place.jobs.checkpoints(job.run_id) == []


def test_a_database_that_refuses_everything_ends_the_runner_with_the_reason(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It cannot store why it ended; its output and exit code tell the dispatcher."""
    place = sqlite_place
    place.submitted()
    claim = attempt(place).claim
    full = StorageFailed("The disk of the database is full; make room and try again.")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    for verb in ("begin", "release"):
        monkeypatch.setattr(RunnerDoor, verb, refuse)
    for name, value in runner_environment(place.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.runner.os.nice", lambda _: 0)
    monkeypatch.setattr("app.runner.signal.signal", lambda *_: None)
    assert runner.main([claim.job_id, str(claim.number), str(claim.token)]) == CANNOT_STORE
    assert capfd.readouterr().err.splitlines() == [full.message]
