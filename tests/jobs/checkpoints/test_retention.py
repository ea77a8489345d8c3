"""Checkpoints that must go, on disks that refuse and in stores that others use too."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any

import pytest

from app.database.tables import new_ulid
from app.errors import CharloomError, NotFound, StorageFailed
from app.jobs.checkpoints.retention import Retention
from app.jobs.dispatcher import Dispatcher
from app.jobs.states import JobState
from app.store.blobs import BlobStore, Removal
from tests.jobs.executors.supervisor import SupervisedExecutor
from tests.jobs.making import Place
from tests.test_runner import attempt


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No file of a store can be removed until this is undone."""

    def refused(self: BlobStore, keys: Iterable[str]) -> Removal:
        error: CharloomError = StorageFailed("the disk is read-only")
        return Removal([], [], dict.fromkeys(keys, error))

    monkeypatch.setattr(BlobStore, "remove", refused)
    return monkeypatch


def test_a_job_is_deleted_at_once_and_its_checkpoints_when_that_is_possible(
    place: Place, read_only: pytest.MonkeyPatch
) -> None:
    job = place.submitted({"checkpoint_every_seconds": 0.1})
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED
    assert "checkpoint_failed" not in place.events(job)  # old ones could not go; new ones could
    written = len(place.checkpoints.sizes())
    place.jobs.delete(job.id)
    with pytest.raises(NotFound):
        place.jobs.get(job.id)
    retention = Retention(place.database, place.checkpoints, days=1)
    assert retention.apply() == 0
    assert len(place.checkpoints.sizes()) == written > 0
    read_only.undo()
    retention.apply()
    assert place.checkpoints.sizes() == {}


def test_one_file_that_cannot_be_removed_holds_up_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submitted()
    attempt(place).run()
    keys = [f"{job.run_id}/9-{number}-periodic.safetensors" for number in range(3)]
    for key in keys:
        place.checkpoints.put(key, b"its writer died")
    unlink = os.unlink

    def refusing(path: Any, **named: Any) -> None:
        if str(path).endswith(keys[0]):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(path, **named)

    monkeypatch.setattr(os, "unlink", refusing)
    assert Retention(place.database, place.checkpoints, days=1).apply() == 2
    assert [key for key in place.checkpoints.sizes() if key in keys] == keys[:1]


def test_files_of_runs_that_the_database_does_not_know_are_left_alone(place: Place) -> None:
    """As when its own file comes late, and an empty one is in its place meanwhile."""
    place.submitted()
    key = f"{new_ulid()}/1-1-final.safetensors"
    place.checkpoints.put(key, b"of another database")
    Retention(place.database, place.checkpoints, days=0).apply()
    assert list(place.checkpoints.sizes()) == [key]


def test_the_dispatcher_does_every_chore_though_one_fails(place: Place) -> None:
    done = list[str]()

    def failing() -> None:
        done.append("failing")
        raise StorageFailed("the disk is read-only")

    dispatcher = Dispatcher(
        place.database,
        SupervisedExecutor("http://127.0.0.1:1"),
        slots=0,
        chores=(failing, lambda: done.append("second")),
        retention=Retention(place.database, place.checkpoints, days=1),
    )
    dispatcher.round()
    dispatcher.round()
    assert done == ["failing", "second"]
