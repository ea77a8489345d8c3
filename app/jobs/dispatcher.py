"""Keep jobs running: claim them, start runners, take back jobs whose runner is gone.

A thread in the server that checks once a second. It may be killed at any moment, and several
may share one database: its state is in the tables, every change is guarded there, and a
runner that outlives its dispatcher is found again by its reference. No error in a round ends
the thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from ..database.session import Database
from ..errors import CharloomError, StorageFailed
from .checkpoints.retention import Retention
from .dispatcher_door import DispatcherDoor
from .executors import Executor, Status
from .executors.command import CANNOT_STORE
from .executors.processes import host_name
from .queries import ActiveAttempt
from .queue import Queue
from .states import JobState
from .times import Times
from .values import Claim

_ROUND_SECONDS: Final = 1.0
_TIDY_SECONDS: Final = 300.0
_STOPPING: Final = (JobState.CANCELLING, JobState.PAUSING)
_STOOD_STILL: Final = "The training process stood still for too long and was killed."
_log = logging.getLogger(__name__)


class Dispatcher:
    """Runs ``slots`` jobs at a time on an executor, until it is closed.

    Every few minutes it also calls each of ``chores``, which may raise our errors.
    """

    def __init__(
        self,
        database: Database,
        executor: Executor,
        *,
        slots: int,
        times: Times | None = None,
        retention: Retention | None = None,
        chores: Sequence[Callable[[], object]] = (),
        round_seconds: float = _ROUND_SECONDS,
    ) -> None:
        self._times = times or Times()
        self._queue = Queue(database, self._times)
        self._door = DispatcherDoor(database, self._times)
        self._executor = executor
        self._slots = slots
        self._chores = [*chores, *([] if retention is None else [retention.apply])]
        self._round_seconds = round_seconds
        self._owner = f"{host_name()}/{os.getpid()}"
        # Times at which we first saw it, by our own clock: the database may have been away.
        self._asked_at: dict[Claim, float] = {}  # the attempt was asked to stop
        self._late_at: dict[Claim, float] = {}  # its lease had expired
        self._placed: dict[Claim, str] = {}  # references at the last check
        self._ended_hung: set[Claim] = set()  # stood still, so we killed their runners
        self._refusal = "The disk or the database refused what it wrote."  # the last one
        self._tidied_at = -float("inf")
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Check now instead of after the usual wait."""
        self._woken.set()

    def close(self) -> None:
        """Stop the thread. Runners continue; the next dispatcher finds them."""
        self._closed.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()
        self._executor.tidy()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._try_round()
            except Exception:  # noqa: BLE001 (a bug of ours must not stop every job)
                _log.exception("a round of the dispatcher failed", extra={"same": "round"})
            self._woken.wait(self._round_seconds)
            self._woken.clear()

    def _try_round(self) -> None:
        try:
            self.round()
        except CharloomError as error:
            self._refusal = error.message
            _warn("jobs are waiting: %s", error.message)
            self._end_hung()

    def round(self) -> None:
        """Check everything once: first lost attempts, then jobs that are due."""
        active = self._door.active()
        self._placed = {
            each.claim: each.reference for each in active if each.reference and self._started(each)
        }
        self._ended_hung &= {each.claim for each in active}
        busy = sum(self._looked_after(each) for each in active)
        asked = {each.claim for each in active if each.state in _STOPPING}
        self._asked_at = {claim: at for claim, at in self._asked_at.items() if claim in asked}
        late = {each.claim for each in active if each.late > 0}
        self._late_at = {claim: at for claim, at in self._late_at.items() if claim in late}
        while busy < self._slots and not self._closed.is_set() and self._queue.is_due():
            if not self._start_next():
                break
            busy += 1
        self._executor.tidy()
        if time.monotonic() - self._tidied_at > _TIDY_SECONDS:
            self._tidied_at = time.monotonic()
            self._tidy()

    def _tidy(self) -> None:
        for chore in self._chores:
            try:
                chore()
            except CharloomError as error:  # the others do not wait for it
                _log.warning("tidying up is put off: %s", error.message)

    def _end_hung(self) -> None:
        """Kill a runner that stays suspended while the database does not answer.

        Suspended in the middle of a write, it keeps a SQLite file locked for everyone,
        and no row can show that.
        """
        now = time.monotonic()
        for claim, reference in self._placed.items():
            with suppress(StorageFailed):  # the executor does not answer either
                if self._executor.status(reference) is not Status.STOPPED:
                    self._late_at.pop(claim, None)
                elif now - self._late_at.setdefault(claim, now) >= self._times.lease:
                    self._end_standing(claim, reference)

    def _end_standing(self, claim: Claim, reference: str) -> None:
        self._ended_hung.add(claim)
        self._executor.stop(reference, force=True)

    def _start_next(self) -> bool:
        claim = self._queue.claim(self._owner, self._executor.name)
        if claim is None:
            return False
        try:
            reference = self._executor.start(claim)
        except StorageFailed as error:
            self._door.lose(claim, error.message)
            return False
        self._door.placed(claim, reference)
        _log.info("job %s: attempt %d is runner %s", claim.job_id, claim.number, reference)
        return True

    def _started(self, attempt: ActiveAttempt) -> bool:
        """Whether our executor started it; only then can the executor read its reference."""
        return attempt.executor == self._executor.name

    def _reference(self, attempt: ActiveAttempt) -> str | None:
        """The attempt's reference; if none is stored, asks our executor for it."""
        if attempt.reference is None and self._started(attempt):
            found = self._executor.find(attempt.claim)
            if found is not None:
                self._door.placed(attempt.claim, found)
            return found
        return attempt.reference

    def _looked_after(self, attempt: ActiveAttempt) -> bool:
        """Take back a lost attempt or stop one that should end; True if it uses a slot of ours.

        A slot is used by what a dispatcher of this machine has claimed, wherever it runs.
        """
        here = attempt.owner.split("/")[0] == host_name()
        try:
            return self._checked(attempt) and here
        except StorageFailed as error:
            self._refusal = error.message
            _warn("job %s: %s", attempt.claim.job_id, error.message)
            self._lose_if_silent(attempt, "The training process no longer reports.")
            return here

    def _checked(self, attempt: ActiveAttempt) -> bool:
        """True while there is a runner, or one may be just starting."""
        reference = self._reference(attempt)
        if reference is None:
            # Claimed, but no runner is known: its dispatcher is just starting it, or has died.
            self._lose_if_silent(attempt, "The training process was never started.")
            return True
        status = self._executor.status(reference) if self._started(attempt) else Status.UNKNOWN
        if status is Status.UNKNOWN:
            self._lose_if_silent(attempt, "The training process no longer reports.")
        elif status is Status.GONE:
            self._take_back(attempt, reference)
        else:
            self._stop_if_due(attempt, reference)
        return status in (Status.ALIVE, Status.STOPPED)

    def _lose_if_silent(self, attempt: ActiveAttempt, reason: str) -> None:
        if self._silent(attempt, 2 * self._times.heartbeat):
            self._door.lose(attempt.claim, reason)

    def _silent(self, attempt: ActiveAttempt, seconds: float) -> bool:
        """Whether the lease has been expired for ``seconds`` by our own clock.

        After the database was away, every lease has expired; healthy runners renew theirs as
        soon as they can.
        """
        if attempt.late <= 0:
            return False
        now = time.monotonic()
        return now - self._late_at.setdefault(attempt.claim, now) >= seconds

    def _take_back(self, attempt: ActiveAttempt, reference: str) -> None:
        code = self._executor.exit_code(reference)
        hung = attempt.claim in self._ended_hung
        self._ended_hung.discard(attempt.claim)
        words = self._executor.last_words(attempt.claim)
        if code == CANNOT_STORE:
            # Its output may have been lost with the rest; then what refused us is why.
            reason = words.splitlines()[-1] if words else self._refusal
            after = self._door.refused(attempt.claim, reason, exit_code=code)
        else:
            ended = f"The training process ended unexpectedly{_exit_text(code)}."
            after = self._door.lose(
                attempt.claim, _STOOD_STILL if hung else ended, exit_code=code, last_words=words
            )
        if after is not None:
            claim = attempt.claim
            _log.warning(
                "job %s: attempt %d was lost%s; the job is %s",
                claim.job_id, claim.number, _exit_text(code), after,
            )  # fmt: skip

    def _stop_if_due(self, attempt: ActiveAttempt, reference: str) -> None:
        """Stop it by the flag in the database first, then by SIGTERM, then by SIGKILL."""
        times, claim = self._times, attempt.claim
        if attempt.late <= 0 and attempt.idle is not None and attempt.idle > times.stall * 1000:
            minutes = times.stall / 60
            message = f"The training made no progress for {minutes:g} minutes and was stopped."
            self._door.fail(claim, "stalled", message)
            self._executor.stop(reference, force=True)
        elif self._silent(attempt, times.lease):
            # Alive, but without a heartbeat: suspended, or blocked in a system call.
            self._end_standing(claim, reference)
        elif attempt.state in _STOPPING:
            asked = self._asked_at.setdefault(claim, time.monotonic())
            waited = time.monotonic() - asked
            if waited > times.grace:
                self._executor.stop(reference, force=waited > 2 * times.grace)


def _warn(message: str, *arguments: str) -> None:
    """Log a warning; where it comes again each round, the log keeps one a minute ("same")."""
    _log.warning(message, *arguments, extra={"same": message % arguments})


def _exit_text(code: int | None) -> str:
    """`` (exit code 1)``, as part of a sentence; empty if the code is not known."""
    if code is None:
        return ""
    if code == -9:
        return " (it was killed, as often happens when memory is short)"
    return f" (by signal {-code})" if code < 0 else f" (exit code {code})"
