"""An attempt that ends without a word at every moment that matters; the next one makes it good.

The end is an exception that nothing catches, so the moment is exact and the
files and rows are as a crash would leave them. Real kills are in ``test_kills``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import update
from torch import Tensor

from app.catalog.models import Registry
from app.database.job_tables import JobRow
from app.database.session import Database
from app.jobs.checkpoints.files import load_checkpoint
from app.jobs.checkpoints.retention import Retention
from app.jobs.checkpoints.rows import CheckpointRows
from app.jobs.dispatcher_door import DispatcherDoor
from app.jobs.runner_door import RunnerDoor
from app.jobs.states import JobState
from app.jobs.values import Job
from app.runner import Attempt
from app.store.blobs import BlobStore
from app.training.trainer import Trainer
from tests.jobs.making import Place, make_place

STEPS = {"max_steps": 60, "checkpoint_every_seconds": 0.1}


class Killed(BaseException):
    """The end of the process."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    database = Database(f"sqlite:///{folder / 'jobs.sqlite3'}")
    database.migrate()
    alone = make_place(database, folder)
    job = alone.submitted(STEPS)
    attempt(alone).run()
    yield final(alone, job)
    database.close()


def attempt(place: Place) -> Attempt:
    with place.database.session() as session:
        session.execute(update(JobRow).values(not_before=0))
    claim = place.queue.claim("test", "local")
    assert claim is not None
    return Attempt(place, claim, on_lost=lambda: None)


def final(place: Place, job: Job) -> dict[str, Tensor]:
    info = next(c for c in place.jobs.checkpoints(job.run_id) if c.kind == "final")
    return load_checkpoint(place.checkpoints, info).tensors()


MOMENTS: dict[str, tuple[type, str, str]] = {
    "before anything was read": (RunnerDoor, "begin", "before"),
    "as soon as it was there": (RunnerDoor, "begin", "after"),
    "before training": (RunnerDoor, "take_up", "after"),
    "before a checkpoint's file": (BlobStore, "put", "before"),
    "between a checkpoint's file and its row": (CheckpointRows, "add", "before"),
    "after a checkpoint's row": (CheckpointRows, "add", "after"),
    "before it is measured": (Trainer, "finish", "before"),
    "before publishing": (RunnerDoor, "to_publishing", "before"),
    "before the model's file": (Registry, "stage", "before"),
    "between the model's file and its row": (RunnerDoor, "succeed", "before"),
    "after the model was published": (RunnerDoor, "succeed", "after"),
}


def dying(original: Callable[..., Any], when: str) -> Callable[..., Any]:
    def act(*arguments: Any, **named: Any) -> Any:
        if when == "before":
            raise Killed
        original(*arguments, **named)
        raise Killed

    return act


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(
    place: Place, undisturbed: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    where, name, when = MOMENTS[moment]
    job = place.submitted(STEPS, max_attempts=2)
    first = attempt(place)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying(getattr(where, name), when))
        with pytest.raises(Killed):
            first.run()
    DispatcherDoor(place.database, place.times).lose(first.claim, "It was killed.")
    if not place.jobs.get(job.id).is_final:
        attempt(place).run()
    done = place.jobs.get(job.id)
    assert done.state is JobState.SUCCEEDED
    assert done.model_version == "words@1" or moment == "before the model's file"
    assert [v.run_id for v in place.registry.versions("words")] == [job.run_id]
    report = place.registry.synchronise()
    assert (report.added, report.missing, report.damaged) == ([], [], {})
    tensors = final(place, job)
    assert all(tensors[key].equal(value) for key, value in undisturbed.items())
    Retention(place.database, place.checkpoints, days=1).apply()
    known = {info.uri for info in place.jobs.checkpoints(job.run_id)}
    assert set(place.checkpoints.sizes()) == known


@pytest.mark.parametrize("verb", ["pause", "cancel"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_asked_at_every_moment(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, moment: str, verb: str
) -> None:
    """What is asked for comes true, or is refused because it is too late; never a third thing."""
    place = sqlite_place
    where, name, when = MOMENTS[moment]
    job = place.submitted({"max_steps": 5})
    original = getattr(where, name)
    refused: list[Exception | None] = []

    def asked(*arguments: Any, **named: Any) -> Any:
        def ask() -> None:
            if not refused:
                try:
                    getattr(place.jobs, verb)(job.id)
                    refused.append(None)
                except Exception as error:  # noqa: BLE001 (looked at below)
                    refused.append(error)

        if when == "before":
            ask()
        found = original(*arguments, **named)
        if when == "after":
            ask()
        return found

    runner = attempt(place)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, asked)
        runner.run()
    done = place.jobs.get(job.id)
    if refused[0] is None:
        wanted = JobState.PAUSED if verb == "pause" else JobState.CANCELLED
        assert done.state is wanted
        assert place.registry.list() == []
    else:
        assert getattr(refused[0], "code", None) == "job_state"
        assert done.state is JobState.SUCCEEDED
    if done.state is JobState.PAUSED:
        place.jobs.resume(job.id)
        attempt(place).run()
        assert place.jobs.get(job.id).state is JobState.SUCCEEDED
