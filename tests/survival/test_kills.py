"""Jobs that outlive whatever is killed: real servers, real training processes, kill −9.

Each job is compared with one that was never disturbed: the same weights bit for
bit, one model version, one clean curve.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from app.database.job_tables import LEASED, AttemptRow, JobRow
from app.database.session import Database
from app.jobs.assembly import runner_environment
from app.jobs.checkpoints import load_checkpoint
from app.jobs.states import JobState
from app.jobs.values import Job
from tests.jobs.making import Place, make_place, wait_for

#: Long enough to be hit anywhere, with a checkpoint every few steps.
LONG = {"max_steps": 1500, "checkpoint_every_seconds": 0.2}
LEASE = 3.0


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    found = make_place(database, tmp_path, lease=LEASE)
    yield found
    for pid in runners(found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def server(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A server process; killed at the end if it still runs."""
    environment = os.environ | runner_environment(place.settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.survival.server"],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def runners(place: Place) -> list[int]:
    """The ids of the training processes that hold a job of this place and are there."""
    query = (
        select(AttemptRow.executor_ref)
        .join(JobRow, (JobRow.id == AttemptRow.job_id))
        .where(JobRow.attempt_number == AttemptRow.number, JobRow.state.in_(LEASED))
    )
    with place.database.session(read_only=True) as session:
        references = [each for each in session.scalars(query) if each]
    pids = [int(reference.split("/")[1]) for reference in references]
    return [pid for pid in pids if psutil.pid_exists(pid)]


def a_runner(place: Place) -> int:
    """The id of the one training process, as soon as there is one."""
    return int(wait_for(lambda: runners(place))[0])


def finished(place: Place, job: Job) -> Job:
    wait_for(lambda: place.jobs.get(job.id).is_final, seconds=120)
    return place.jobs.get(job.id)


def check(place: Place, job: Job, undisturbed: Job) -> None:
    """One version, one clean curve, the same weights."""
    done = finished(place, job)
    events = place.jobs.events(job.id, limit=1000)
    assert done.state is JobState.SUCCEEDED, [event.message for event in events]
    assert [v.run_id for v in place.registry.versions(job.model)].count(job.run_id) == 1
    assert place.registry.synchronise().added == []
    for series in place.jobs.metrics(job.run_id):
        steps = [bucket.step for bucket in series.points]
        assert steps == sorted(set(steps))
        assert steps[-1] == LONG["max_steps"]
    finals = []
    for each in (job, undisturbed):
        info = next(c for c in place.jobs.checkpoints(each.run_id) if c.kind == "final")
        finals.append(load_checkpoint(place.checkpoints, info).tensors())
    assert all(finals[0][name].equal(finals[1][name]) for name in finals[1])


def test_kills_at_random_moments(place: Place) -> None:
    """The training process, the server, or both, again and again, until the job is done."""
    chance = random.Random(3)
    undisturbed = place.submitted(LONG, model="undisturbed")
    with server(place):
        finished(place, undisturbed)
        job = place.submitted(LONG, max_attempts=20)
        for _ in range(2):
            pid = a_runner(place)
            time.sleep(chance.uniform(0.2, 2.5))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda gone=pid: gone not in runners(place))  # type: ignore[misc]
    # The server is dead now; its runner, if it had started one, goes on alone.
    with server(place) as second:
        a_runner(place)
        time.sleep(chance.uniform(0.2, 1.5))
        second.kill()
        for pid in runners(place):
            os.kill(pid, signal.SIGKILL)
    with server(place):
        check(place, job, undisturbed)
    assert place.jobs.get(job.id).attempt >= 3


def test_a_runner_outlives_its_server(place: Place) -> None:
    """Fails when a runner is tied to its server, by a pipe, a session or a signal."""
    undisturbed = place.submitted(LONG, model="undisturbed")
    with server(place):
        finished(place, undisturbed)
        job = place.submitted(LONG)
        pid = a_runner(place)
    assert psutil.pid_exists(pid)
    with server(place):
        check(place, job, undisturbed)
    assert place.jobs.get(job.id).attempt == 1


def test_a_runner_that_was_stopped_for_too_long_is_fenced_off(place: Place) -> None:
    """Its lease is taken over while it stands still; awake again, it must write nothing."""
    job = place.submitted(LONG)
    with server(place):
        pid = a_runner(place)
        wait_for(lambda: "prepared" in place.events(job))
    os.kill(pid, signal.SIGSTOP)
    with place.database.session() as session:  # as another machine's dispatcher would see it
        row = session.get_one(JobRow, job.id)
        row.state, row.lease_expires_at, row.lease_token = "queued", None, row.lease_token + 1
    before = place.jobs.get(job.id), place.jobs.events(job.id)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    assert (place.jobs.get(job.id), place.jobs.events(job.id)) == before
    assert place.registry.list() == []
    log = next((place.settings.data_dir / "runners").glob("*-1.log"))
    assert "Traceback" not in log.read_text()


def test_a_runner_that_hangs_is_killed_and_taken_over(place: Place) -> None:
    job = place.submitted(LONG)
    with server(place):
        pid = a_runner(place)
        wait_for(lambda: place.jobs.checkpoints(job.run_id))
        os.kill(pid, signal.SIGSTOP)
        done = finished(place, job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)


def test_what_a_crashed_runner_wrote_is_in_the_events(place: Place) -> None:
    job = place.submitted(LONG, max_attempts=1)
    with server(place):
        pid = a_runner(place)
        wait_for(lambda: "prepared" in place.events(job))
        os.kill(pid, signal.SIGABRT)
        failed = finished(place, job)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.code == "runner_lost"
    assert place.jobs.events(job.id)[-1].payload["exit_code"] == -signal.SIGABRT
