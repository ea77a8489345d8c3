"""Jobs that outlive whatever is killed: real servers, real training processes, kill −9.

Each job is compared with one that was never disturbed: the same weights bit for
bit, one model version, one clean curve.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from torch import Tensor

from app.database.job_states import LEASED
from app.database.job_tables import AttemptRow, JobRow
from app.database.session import Database
from app.jobs.checkpoints.files import load_checkpoint
from app.jobs.executors.command import runner_path
from app.jobs.states import JobState
from app.jobs.values import Job
from app.runner import Attempt
from app.wiring.full import runner_environment
from tests.jobs.making import Place, make_place, wait_for
from tests.processes import ending

#: Long enough to be hit anywhere, with a checkpoint every few steps.
LONG = {"max_steps": 700, "checkpoint_every_seconds": 0.1}


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    with tidied(make_place(database, tmp_path, lease=1.5)) as found:
        yield found


@pytest.fixture
def sqlite_place(sqlite_database: Database, tmp_path: Path) -> Iterator[Place]:
    with tidied(make_place(sqlite_database, tmp_path, lease=1.5)) as found:
        yield found


@pytest.fixture(params=["local", "supervised"])
def executor(request: pytest.FixtureRequest, sqlite_place: Place) -> Iterator[list[str]]:
    """What servers are told of their executor: nothing, or where its supervisor listens."""
    if request.param == "local":
        yield []
        return
    # A socket's path must be short, which pytest's folders are not.
    with tempfile.TemporaryDirectory() as folder, supervisor(sqlite_place, folder) as address:
        yield [address]


@contextmanager
def supervisor(place: Place, folder: str) -> Iterator[str]:
    """A process that runs runners for servers that come and go; its address."""
    address = f"{folder}/supervisor"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.executors.supervisor", address],
        env=os.environ | runner_environment(place.settings) | runner_path(),
        stdout=subprocess.PIPE,
    )
    with ending(process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield address


@contextmanager
def tidied(place: Place) -> Iterator[Place]:
    """Training processes outlive their servers; they must not outlive the tests."""
    try:
        yield place
    finally:
        for pid in runners(place):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def server(place: Place, executor: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A server process; killed at the end with all that belongs to it."""
    environment = os.environ | runner_environment(place.settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.survival.server", *executor],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # not its runners: they outlive it, see ``tidied``
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def runners(place: Place) -> list[int]:
    """The ids of the training processes that hold a job of this place and are there."""
    query = (
        select(AttemptRow.pid)
        .join(JobRow, (JobRow.id == AttemptRow.job_id))
        .where(JobRow.attempt_number == AttemptRow.number, JobRow.state.in_(LEASED))
    )
    with place.database.session(read_only=True) as session:
        return [pid for pid in session.scalars(query) if pid and psutil.pid_exists(pid)]


def a_runner(place: Place) -> int:
    """The id of the one training process, as soon as there is one."""
    return int(wait_for(lambda: runners(place))[0])


def finished(place: Place, job: Job) -> Job:
    wait_for(lambda: place.jobs.get(job.id).is_final, seconds=120)
    return place.jobs.get(job.id)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What the job comes to when nobody kills anything."""
    folder = tmp_path_factory.mktemp("undisturbed")
    database = Database(f"sqlite:///{folder / 'jobs.sqlite3'}")
    database.migrate()
    alone = make_place(database, folder)
    job = alone.submitted(LONG)
    claim = alone.queue.claim("test", "local")
    assert claim is not None
    Attempt(alone, claim, on_lost=lambda: None).run()
    database.close()
    return final(alone, job)


def final(place: Place, job: Job) -> dict[str, Tensor]:
    info = next(c for c in place.jobs.checkpoints(job.run_id) if c.kind == "final")
    return load_checkpoint(place.checkpoints, info).tensors()


def check(place: Place, job: Job, undisturbed: dict[str, Tensor]) -> None:
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
    tensors = final(place, job)
    assert all(tensors[name].equal(value) for name, value in undisturbed.items())


def test_kills_at_random_moments(place: Place, undisturbed: dict[str, Tensor]) -> None:
    """The training process dies, then one hangs, then one dies together with its server."""
    kill_at_random_moments(place, undisturbed)


def test_kills_of_what_a_supervisor_runs(
    sqlite_place: Place, undisturbed: dict[str, Tensor]
) -> None:
    """The same with an executor whose references nobody else can read."""
    with (
        tempfile.TemporaryDirectory() as folder,
        supervisor(sqlite_place, folder) as address,
    ):
        kill_at_random_moments(sqlite_place, undisturbed, [address])


def kill_at_random_moments(
    place: Place, undisturbed: dict[str, Tensor], executor: Sequence[str] = ()
) -> None:
    chance = random.Random(3)
    with server(place, executor) as first:
        job = place.submitted(LONG, max_attempts=20)
        for blow in (signal.SIGKILL, signal.SIGSTOP, None):
            # On a fast machine the job may be done before the last blow.
            pids = wait_for(lambda: runners(place) or place.jobs.get(job.id).is_final)
            if pids is True:
                break
            if blow is signal.SIGSTOP:  # one that comes up has a minute before it is missed
                wait_for(lambda: place.jobs.get(job.id).state is not JobState.STARTING)
            time.sleep(chance.uniform(0.2, 1.5))
            if blow is None:
                first.kill()
            strike(pids[0], blow or signal.SIGKILL)
            wait_until_gone(pids[0])
    with server(place, executor):
        check(place, job, undisturbed)


def strike(pid: int, blow: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it may have finished
        os.kill(pid, blow)


def wait_until_gone(pid: int) -> None:
    def gone() -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        return True

    wait_for(gone)


def test_a_runner_outlives_its_server(
    sqlite_place: Place, executor: list[str], undisturbed: dict[str, Tensor]
) -> None:
    """Fails when a runner is in its server's process group."""
    place = sqlite_place
    with server(place, executor):
        job = place.submitted(LONG)
        pid = a_runner(place)
    assert psutil.pid_exists(pid)
    with server(place, executor):
        check(place, job, undisturbed)
    assert place.jobs.get(job.id).attempt == 1


def stop_outside_a_write(place: Place, pid: int) -> None:
    """Stop a process, but not where it holds the SQLite file for everyone."""

    def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        file = place.database.engine.url.database
        assert file
        with sqlite3.connect(file, timeout=0.2, isolation_level=None) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
            connection.execute("ROLLBACK")
        connection.close()
        return True

    wait_for(stopped)


def test_a_runner_that_was_stopped_for_too_long_is_fenced_off(
    sqlite_place: Place, executor: list[str]
) -> None:
    """Its lease is taken over while it stands still; awake again, it must write nothing."""
    place = sqlite_place
    job = place.submitted(LONG)
    with server(place, executor):
        pid = a_runner(place)
        wait_for(lambda: "prepared" in place.events(job))
    stop_outside_a_write(place, pid)
    with place.database.session() as session:  # as another machine's dispatcher would see it
        row = session.get_one(JobRow, job.id)
        row.state, row.lease_expires_at, row.lease_token = "queued", None, row.lease_token + 1
    before = place.jobs.get(job.id), place.jobs.events(job.id)
    os.kill(pid, signal.SIGCONT)
    wait_until_gone(pid)
    assert (place.jobs.get(job.id), place.jobs.events(job.id)) == before
    assert place.registry.list() == []
    for log in (place.settings.data_dir / "runners").glob("*-1.log"):
        assert "Traceback" not in log.read_text()


def test_what_a_crashed_runner_wrote_is_in_the_events(
    sqlite_place: Place, executor: list[str]
) -> None:
    place = sqlite_place
    job = place.submitted(LONG, max_attempts=1)
    with server(place, executor):
        pid = a_runner(place)
        wait_for(lambda: "prepared" in place.events(job))
        os.kill(pid, signal.SIGABRT)
        failed = finished(place, job)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.code == "runner_lost"
    assert place.jobs.events(job.id)[-1].payload["exit_code"] == -signal.SIGABRT
