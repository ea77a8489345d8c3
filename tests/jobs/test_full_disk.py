"""A disk that is full while a job writes a checkpoint or publishes; the system itself refuses."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from app.catalog.models import Registry
from app.jobs.states import JobState
from app.runner import Attempt
from app.store.blobs import BlobStore
from tests.jobs.making import Place
from tests.test_runner import attempt


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every write beyond that many bytes of a file is refused by the system, as by a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FullDisk(BlobStore):
    """A store whose disk has room for files of a few bytes only, while it is full."""

    full = True

    def put(self, key: str, content: Any) -> Any:
        if not self.full:
            return super().put(key, content)
        with files_of_at_most(500):
            return super().put(key, content)


def attempt_with(place: Place, **stores: Any) -> Attempt:
    return Attempt(replace(place, **stores), attempt(place).claim, on_lost=lambda: None)


def test_a_full_disk_costs_checkpoints_but_not_the_training(place: Place) -> None:
    job = place.submitted({"checkpoint_every_seconds": 0.1})
    full = FullDisk(place.checkpoints.url)
    attempt_with(place, checkpoints=full).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED
    assert list(place.jobs.checkpoints(job.run_id)) == []
    told = [each for each in place.jobs.events(job.id) if each.type == "checkpoint_failed"]
    assert told
    assert told[0].level == "warning"
    assert place.checkpoints.sizes() == {}


def test_a_full_disk_while_publishing_is_tried_again(place: Place) -> None:
    job = place.submitted()
    full = FullDisk(place.models.url)
    registry = Registry(place.database, full)
    attempt_with(place, models=full, registry=registry).run()
    waiting = place.jobs.get(job.id)
    assert waiting.state is JobState.QUEUED
    assert place.models.sizes() == {}
    last = place.jobs.events(job.id)[-1]
    assert (last.type, last.level) == ("queued", "warning")
    assert "cannot be stored" in last.message
    attempt(place).run()
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED
    assert [each.version for each in place.registry.versions("words")] == [2]


def test_a_full_disk_at_every_attempt_fails_the_job_with_the_reason(sqlite_place: Place) -> None:
    place = sqlite_place
    job = place.submitted(max_attempts=2)
    full = FullDisk(place.models.url)
    registry = Registry(place.database, full)
    for _ in range(3):  # the first one brought a checkpoint
        attempt_with(place, models=full, registry=registry).run()
        if place.jobs.get(job.id).is_final:
            break
    failed = place.jobs.get(job.id)
    assert failed.error is not None
    assert failed.error.code == "storage_failed"
