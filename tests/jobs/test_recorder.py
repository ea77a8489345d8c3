"""What a training tells while the database is away, and what it does when its lease is lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from app.charlm.measures import Measures
from app.charlm.training import Progress
from app.errors import LeaseLost, Overloaded
from app.jobs.recorder import Recorder
from app.jobs.runner_door import RunnerDoor
from app.jobs.states import Wish
from app.jobs.values import Claim, JobProgress, Point, Sample
from tests.jobs.making import Place, wait_for
from tests.jobs.test_runner_door import begun


def step(number: int, *, measured: bool = False, loss: float = 2.0) -> Progress:
    measures = Measures(20.0, 3, 10) if measured else None
    return Progress(number, 100, 0, number / 100, 1000.0, loss, 0.1, 0.5, 3.0, measures)


class Away(RunnerDoor):
    """A database that does not answer for a while."""

    away = True

    def record(
        self,
        claim: Claim,
        run_id: str,
        points: Sequence[Point],
        progress: JobProgress | None,
        samples: Sequence[Sample] = (),
    ) -> Wish:
        if self.away:
            raise Overloaded("Try again.")
        return super().record(claim, run_id, points, progress, samples)


def recorder_of(leases: RunnerDoor, claim: Claim, run_id: str, lost: threading.Event) -> Recorder:
    return Recorder(leases, claim, run_id, heartbeat_seconds=0.02, on_lost=lost.set)


def test_nothing_is_lost_while_the_database_is_away(place: Place) -> None:
    job, claim = begun(place)
    leases = Away(place.database, place.times)
    with recorder_of(leases, claim, job.run_id, threading.Event()) as recorder:
        for number in (1, 2, 3):
            recorder.add(step(number, measured=True))
            recorder.show(number, f"text {number}")
            with pytest.raises(Overloaded):
                recorder.flush()
        assert place.jobs.get(job.id).progress is None
        leases.away = False
        wait_for(lambda: place.jobs.get(job.id).progress)
    steps = {s.name: [b.step for b in s.points] for s in place.jobs.metrics(job.run_id)}
    assert steps["train_loss"] == steps["validation_loss"] == [1, 2, 3]
    written = place.jobs.samples(job.run_id).items
    assert [(each.step, each.text) for each in written] == [
        (1, "text 1"), (2, "text 2"), (3, "text 3")
    ]  # fmt: skip


def test_the_loss_told_is_the_mean_since_the_last_point(place: Place) -> None:
    job, claim = begun(place)
    now = 0.0
    recorder = Recorder(
        place.door, claim, job.run_id, heartbeat_seconds=1, on_lost=lambda: None,
        clock=lambda: now,
    )  # fmt: skip
    for number, loss in enumerate([9.0, 1.0, 2.0, 3.0, 7.0], 1):
        now = {4: 0.6}.get(number, now)
        recorder.add(step(number, loss=loss))
    recorder.flush()
    (series,) = place.jobs.metrics(job.run_id, ["train_loss"])
    assert [(b.step, b.last) for b in series.points] == [(1, 9.0), (4, 2.0)]
    progress = place.jobs.get(job.id).progress
    assert progress is not None
    assert (progress.step, progress.train_loss) == (4, 2.0)


def test_a_lost_lease_is_told_at_once(place: Place) -> None:
    job, claim = begun(place)
    lost = threading.Event()
    stale = Claim(claim.job_id, claim.number, claim.token - 1)
    with recorder_of(place.door, stale, job.run_id, lost):
        assert lost.wait(10)


def test_a_wish_is_heard(place: Place) -> None:
    job, claim = begun(place)
    with recorder_of(place.door, claim, job.run_id, threading.Event()) as recorder:
        place.jobs.pause(job.id)
        wait_for(lambda: recorder.wish is Wish.PAUSE)
        assert not recorder.end(lambda: False)
        place.jobs.resume(job.id)
        wait_for(lambda: recorder.wish is Wish.RUN)


def test_after_the_end_it_writes_no_more(place: Place) -> None:
    """Fails without ``end``: the next heartbeat would find the lease gone and end the process."""
    job, claim = begun(place)
    lost = threading.Event()
    with recorder_of(place.door, claim, job.run_id, lost) as recorder:

        def fail() -> bool:
            place.door.fail(claim, "training_failed", "It went wrong.")
            return True

        recorder.end(fail)
        recorder.add(step(1, measured=True))
        recorder.flush()
        assert not lost.wait(0.1)
    with pytest.raises(LeaseLost):
        place.door.renew(claim)
