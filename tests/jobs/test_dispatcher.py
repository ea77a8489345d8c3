"""The dispatcher with an executor of threads: slots, takeovers, two servers, mistakes.

Real processes, and what kills them, are in tests/survival.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import text, update

from app.database.job_tables import AttemptRow, JobRow, RunRow
from app.database.tables import Base
from app.errors import LeaseLost, Overloaded, StorageFailed
from app.jobs.dispatcher import Dispatcher
from app.jobs.dispatcher_door import DispatcherDoor
from app.jobs.executors import Status
from app.jobs.executors.command import CANNOT_STORE
from app.jobs.executors.processes import host_name
from app.jobs.publishing import publish
from app.jobs.queue import Queue
from app.jobs.states import JobState
from app.jobs.times import Times
from app.jobs.values import Claim, Job
from tests.jobs.making import Place, wait_for
from tests.models import tiny_artifact


class Threads:
    """An executor whose runners are threads; what they do is given."""

    name = "threads"

    def __init__(self, work: Callable[[Claim], None]) -> None:
        self.work = work
        self.started: list[Claim] = []
        self.stopped: list[tuple[str, bool]] = []
        self.broken = False
        self.lost: dict[Claim, str] = {}  # runners that nobody came to store
        self.running: dict[str, threading.Thread] = {}
        self.lock = threading.Lock()

    def start(self, claim: Claim) -> str:
        if self.broken:
            raise StorageFailed("No room for a process.")
        thread = threading.Thread(target=self.work, args=(claim,))
        reference = f"{host_name()}/{claim.job_id}/{claim.number}"
        with self.lock:
            self.started.append(claim)
            self.running[reference] = thread
        thread.start()
        return reference

    def status(self, reference: str) -> Status:
        thread = self.running.get(reference)
        if thread is None:
            return Status.UNKNOWN
        return Status.ALIVE if thread.is_alive() else Status.GONE

    def stop(self, reference: str, *, force: bool) -> None:
        self.stopped.append((reference, force))

    def find(self, claim: Claim) -> str | None:
        return self.lost.get(claim)

    def exit_code(self, reference: str) -> int | None:
        return -9

    def last_words(self, claim: Claim) -> str:
        return "last words"

    def tidy(self) -> None:
        return


@contextmanager
def dispatching(
    place: Place, executor: Threads, *, slots: int = 1, times: Times | None = None
) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(
        place.database, executor, slots=slots, times=times or place.times, round_seconds=0.02
    )
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.close()
        for thread in executor.running.values():
            thread.join(60)


def publishing(place: Place) -> Callable[[Claim], None]:
    """A runner that needs no training."""

    def work(claim: Claim) -> None:
        job = place.door.begin(claim, host="here", pid=1, pid_started=2.0)
        assert place.door.to_publishing(claim)
        staged = place.registry.stage(job.model, tiny_artifact(), job.run_id)
        publish(place.door, place.registry, claim, staged)

    return work


def waiting(end: threading.Event) -> None:
    end.wait(60)


def many(place: Place, count: int) -> list[str]:
    """Queue many jobs quickly, for a few models."""
    first = place.submitted()
    ids = [f"{number:026d}" for number in range(count - 1)]
    with place.database.session() as session:
        job = columns(session.get_one(JobRow, first.id))
        run = columns(session.get_one(RunRow, first.run_id))
        for number, job_id in enumerate(ids):
            session.add(JobRow(**job | {"id": job_id, "model_name": f"words{number % 7}"}))
            session.flush()
            session.add(RunRow(**run | {"id": job_id, "job_id": job_id}))
    return [first.id, *ids]


def columns(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def test_two_servers_run_each_of_many_jobs_once(place: Place) -> None:
    """Fails when a claim is read first and written after, unguarded."""
    ids = many(place, 200 if place.database.engine.dialect.name == "postgresql" else 30)
    work = publishing(place)
    executors = [Threads(work), Threads(work)]
    with ExitStack() as stack:
        for executor in executors:
            stack.enter_context(dispatching(place, executor, slots=3))
        wait_for(lambda: place.jobs.counts() == {"succeeded": len(ids)})
    started = [claim.job_id for executor in executors for claim in executor.started]
    assert sorted(started) == sorted(ids)
    versions = [v for name in place.registry.list() for v in place.registry.versions(name.name)]
    assert len(versions) == len(ids)
    assert len({version.run_id for version in versions}) == len(ids)


def test_never_more_than_the_slots(place: Place) -> None:
    now, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2)  # and never fewer, where there is work for both
    finish = publishing(place)

    def work(claim: Claim) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(60)
        with lock:
            now -= 1
        finish(claim)

    for _ in range(8):
        place.submitted()
    with dispatching(place, Threads(work), slots=2):
        wait_for(lambda: place.jobs.counts() == {"succeeded": 8})
    assert most == 2


def test_a_runner_that_is_gone_is_noticed_and_the_job_tried_again(place: Place) -> None:
    job = place.submitted()
    times = Times(0.6)
    finish = publishing(place)

    def work(claim: Claim) -> None:
        if claim.number == 3:
            finish(claim)

    with dispatching(place, Threads(work), times=times):
        wait_for(lambda: place.jobs.get(job.id).is_final)
    done = place.jobs.get(job.id)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 3)
    lost = [e for e in place.jobs.events(job.id) if e.payload.get("stderr")]
    assert [e.payload for e in lost] == [{"exit_code": -9, "stderr": "last words"}] * 2


def test_a_job_whose_runner_always_dies_fails_with_its_last_words(place: Place) -> None:
    job = place.submitted(max_attempts=2)
    with dispatching(place, Threads(lambda claim: None), times=Times(0.6)):
        wait_for(lambda: place.jobs.get(job.id).is_final)
    failed = place.jobs.get(job.id)
    assert failed.attempt == 2
    assert failed.error is not None
    assert failed.error.code == "runner_lost"
    assert failed.error.message == (
        "The training process ended unexpectedly (it was killed, as often happens when memory "
        "is short). Its last output: last words"
    )


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("noise\nThe disk of the database is full; make room and try again.",
         "The disk of the database is full; make room and try again."),
        ("", "No room on this disk."),  # its output was lost, but the dispatcher was refused too
    ],
)  # fmt: skip
def test_a_job_whose_runner_could_not_write_says_why(
    sqlite_place: Place, output: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Threads):
        def exit_code(self, reference: str) -> int | None:
            return CANNOT_STORE

        def last_words(self, claim: Claim) -> str:
            return output

    place = sqlite_place
    job = place.submitted(max_attempts=1)
    active, refusals = DispatcherDoor.active, iter([StorageFailed("No room on this disk.")])

    def sometimes(door: DispatcherDoor) -> Any:
        for refusal in refusals:
            raise refusal
        return active(door)

    monkeypatch.setattr(DispatcherDoor, "active", sometimes)
    with dispatching(place, Refused(lambda claim: None), times=Times(0.6)):
        wait_for(lambda: place.jobs.get(job.id).is_final)
    failed = place.jobs.get(job.id)
    assert failed.error is not None
    assert failed.error.code == "storage_failed"
    assert failed.error.message == f"The training process could not go on: {reason}"


def test_no_slot_starts_nothing(place: Place) -> None:
    job = place.submitted()
    executor = Threads(publishing(place))
    with dispatching(place, executor, slots=0):
        time.sleep(0.1)
    assert place.jobs.get(job.id).state is JobState.QUEUED


def test_a_machine_that_cannot_start_processes_is_told(place: Place) -> None:
    job = place.submitted(max_attempts=1)
    executor = Threads(publishing(place))
    executor.broken = True
    with dispatching(place, executor):
        wait_for(lambda: place.jobs.get(job.id).is_final)
    error = place.jobs.get(job.id).error
    assert error is not None
    assert error.message == "No room for a process."


def claimed_elsewhere(place: Place, reference: str | None) -> Job:
    """A job that another machine's dispatcher has claimed."""
    job = place.submitted()
    claim = place.queue.claim("elsewhere/1", "threads")
    assert claim is not None
    with place.database.session() as session:
        session.execute(update(AttemptRow).values(executor_ref=reference))
    return job


@pytest.mark.parametrize("reference", ["elsewhere/1/2", None])
def test_a_job_of_another_machine_is_taken_over_when_its_lease_is_over(
    place: Place, reference: str | None
) -> None:
    job = claimed_elsewhere(place, reference)
    executor = Threads(publishing(place))
    with dispatching(place, executor, times=Times(0.6)) as dispatcher:
        dispatcher.wake()
        time.sleep(0.5)
        assert executor.started == []  # its lease holds
        with place.database.session() as session:
            session.execute(text("UPDATE jobs SET lease_expires_at = 1"))
        wait_for(lambda: place.jobs.get(job.id).state is JobState.QUEUED)
        with place.database.session() as session:
            session.execute(update(JobRow).values(not_before=0))
        wait_for(lambda: place.jobs.get(job.id).is_final)
    assert place.jobs.get(job.id).state is JobState.SUCCEEDED


def test_a_runner_that_nobody_came_to_store_is_found_and_looked_after(place: Place) -> None:
    """Its dispatcher died after starting it. Fails when only a stored reference is asked after."""
    job = place.submitted(max_attempts=1)
    claim = place.queue.claim("elsewhere/1", "threads")
    assert claim is not None
    end = threading.Event()
    executor = Threads(lambda _: waiting(end))
    executor.lost[claim] = executor.start(claim)
    with dispatching(place, executor, times=Times(0.5)):
        wait_for(lambda: DispatcherDoor(place.database, place.times).active()[0].reference)
        place.jobs.cancel(job.id)
        wait_for(lambda: (executor.lost[claim], True) in executor.stopped)
        end.set()
        wait_for(lambda: place.jobs.get(job.id).is_final)
    assert place.jobs.get(job.id).state is JobState.CANCELLED


def test_a_runner_without_progress_is_stopped(place: Place) -> None:
    """And what it would write after that is refused."""
    job = place.submitted()
    training, end, refused = threading.Event(), threading.Event(), threading.Event()

    def work(claim: Claim) -> None:
        place.door.begin(claim, host="here", pid=1, pid_started=2.0)
        place.door.take_up(claim, job.run_id, 0, {})
        training.set()
        end.wait(60)
        try:
            place.door.renew(claim)
        except LeaseLost:
            refused.set()

    executor = Threads(work)
    with dispatching(place, executor, times=Times(0.5)):
        assert training.wait(60)
        with place.database.session() as session:
            session.execute(update(AttemptRow).values(last_progress_at=1))
        wait_for(lambda: place.jobs.get(job.id).is_final)
        end.set()
    assert refused.wait(10)
    error = place.jobs.get(job.id).error
    assert error is not None
    assert error.code == "stalled"
    assert executor.stopped[-1][1] is True


def test_a_runner_that_will_not_stop_is_made_to(place: Place) -> None:
    job = place.submitted()
    end = threading.Event()

    def work(claim: Claim) -> None:
        place.door.begin(claim, host="here", pid=1, pid_started=2.0)
        end.wait(60)

    executor = Threads(work)
    with dispatching(place, executor, times=Times(0.5)):
        wait_for(lambda: "started" in place.events(job))
        place.jobs.cancel(job.id)
        wait_for(lambda: (f"{host_name()}/{job.id}/1", True) in executor.stopped)
        assert executor.stopped[0][1] is False  # asked first
        end.set()
        wait_for(lambda: place.jobs.get(job.id).is_final)
    assert place.jobs.get(job.id).state is JobState.CANCELLED


def test_a_runner_that_stands_still_is_ended_and_the_events_say_so(place: Place) -> None:
    job = place.submitted(max_attempts=1)
    end = threading.Event()

    def work(claim: Claim) -> None:
        place.door.begin(claim, host="here", pid=1, pid_started=2.0)
        waiting(end)

    executor = Threads(work)
    with dispatching(place, executor, times=Times(0.3)):
        wait_for(lambda: place.jobs.get(job.id).state is JobState.RUNNING)
        with place.database.session() as session:
            session.execute(text("UPDATE jobs SET lease_expires_at = 1"))
        wait_for(lambda: any(force for _, force in executor.stopped))
        end.set()
        wait_for(lambda: place.jobs.get(job.id).is_final)
    error = place.jobs.get(job.id).error
    assert error is not None
    assert "stood still" in error.message


def test_a_runner_has_a_minute_to_come_up(place: Place) -> None:
    """However short leases are: importing torch on a busy machine takes longer than they last."""
    place.submitted()
    claim = Queue(place.database, Times(0.1)).claim("test", "local")
    assert claim is not None
    (active,) = DispatcherDoor(place.database, Times(0.1)).active()
    assert active.late < -50_000


def test_a_runner_that_stands_still_and_holds_the_database_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submitted()
    end = threading.Event()
    executor = Threads(lambda claim: waiting(end))
    with dispatching(place, executor, times=Times(0.3)):
        reference = wait_for(lambda: next(iter(executor.running), None))
        wait_for(lambda: DispatcherDoor(place.database, place.times).active()[0].reference)
        time.sleep(0.1)  # a round that sees it

        def locked(self: Dispatcher) -> None:
            raise Overloaded("The database does not answer just now; try again.")

        monkeypatch.setattr(Dispatcher, "round", locked)
        monkeypatch.setattr(executor, "status", lambda reference: Status.STOPPED)
        wait_for(lambda: (reference, True) in executor.stopped)
        end.set()
    assert not place.jobs.get(job.id).is_final


def test_a_failed_round_is_not_the_last(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submitted()
    executor = Threads(publishing(place))
    problems: list[Exception] = [StorageFailed("The disk is full."), RuntimeError("ours")]
    status = Dispatcher.round

    def troubled(self: Dispatcher) -> None:
        if problems:
            raise problems.pop(0)
        status(self)

    monkeypatch.setattr(Dispatcher, "round", troubled)
    with caplog.at_level(logging.WARNING), dispatching(place, executor):
        wait_for(lambda: place.jobs.get(job.id).is_final)
    assert "The disk is full." in caplog.text
    assert "a round of the dispatcher failed" in caplog.text


def test_only_the_executor_that_started_a_runner_is_asked_about_it(place: Place) -> None:
    """Nobody else can read its reference: not in a round, not while the database is away."""
    place.submitted()
    claim = place.queue.claim(f"{host_name()}/1", "another")
    assert claim is not None
    DispatcherDoor(place.database, place.times).placed(claim, "not/ours")

    class Strict(Threads):
        def status(self, reference: str) -> Status:
            raise AssertionError(f"asked about {reference}")

    dispatcher = Dispatcher(place.database, Strict(lambda claim: None), slots=1)
    dispatcher.round()
    dispatcher._end_hung()
    assert place.jobs.list(state=JobState.RUNNING).items == []
    assert [each.claim for each in DispatcherDoor(place.database, place.times).active()] == [claim]


def test_an_executor_that_does_not_answer_holds_up_no_other_job(place: Place) -> None:
    place.submitted()
    silent = place.queue.claim(f"{host_name()}/1", "threads")
    job = place.submitted()

    class Silent(Threads):
        def find(self, claim: Claim) -> str | None:
            if claim == silent:
                raise StorageFailed("Nothing answers.")
            return super().find(claim)

    with dispatching(place, Silent(publishing(place)), slots=2):
        wait_for(lambda: place.jobs.get(job.id).is_final)


def test_what_servers_elsewhere_run_takes_no_slot_here(place: Place) -> None:
    """An executor for many machines knows the runners of every server."""
    place.submitted()
    elsewhere = place.queue.claim("elsewhere/1", "threads")
    assert elsewhere is not None
    end = threading.Event()
    executor = Threads(lambda claim: waiting(end))
    DispatcherDoor(place.database, place.times).placed(elsewhere, executor.start(elsewhere))
    mine = place.submitted()
    with dispatching(place, executor):
        wait_for(lambda: len(executor.started) == 2)
        assert executor.started[1].job_id == mine.id
        end.set()
