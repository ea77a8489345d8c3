"""A runner's door to the database: everything it writes about its job, under its lease.

Takes a database and a ``Claim``; every method is one transaction that first
renews the lease by its token (``lease``). If the token is stale the method
raises LeaseLost and nothing is written: a runner that was replaced
cannot touch the job any more. The renewal also locks the job's
row, so a takeover waits for the write and comes after it as a whole. Knows
nothing of files or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, delete, func, select, update

from ..catalog.index import Staged
from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..database.job_tables import JobRow, MetricPointRow, RunRow
from ..database.session import Database
from ..database.tables import now_milliseconds
from .attempt_end import Ending, end_attempt, end_attempt_as
from .checkpoints.rows import CheckpointRows
from .events import add_event
from .lease import renew_lease, touch_attempt
from .points import insert_points
from .states import JobState, Wish
from .times import Times
from .values import Claim, JobProgress, Level, Point


@dataclass(frozen=True)
class Assignment:
    """What a runner needs to know of its job."""

    job_id: str
    run_id: str
    model: str
    dataset_id: str | None
    base_version: str | None
    spec: dict[str, Any]
    parameters: dict[str, Any]
    wish: Wish


class RunnerDoor:
    """A runner's door to the database; safe to share between its threads."""

    def __init__(self, database: Database, times: Times | None = None) -> None:
        self._database = database
        self._times = times or Times()
        self.checkpoints = CheckpointRows(database, self._times)

    def begin(self, claim: Claim, *, host: str, pid: int, pid_started: float) -> Assignment:
        """Report that the runner has started and its process; returns what to do.

        ``pid_started`` is in seconds from the machine's start.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            session.execute(
                update(JobRow)
                .where(JobRow.id == claim.job_id)
                .values(
                    started_at=func.coalesce(JobRow.started_at, now_milliseconds()),
                    state=case(
                        (JobRow.state == JobState.STARTING, JobState.RUNNING), else_=JobRow.state
                    ),
                )
            )
            touch_attempt(session, claim, host=host, pid=pid, pid_started=pid_started)
            query = select(JobRow, RunRow).join(RunRow, RunRow.job_id == JobRow.id)
            job, run = session.execute(query.where(JobRow.id == claim.job_id)).one()
            add_event(session, job.id, claim.number, "started", "The training process is there.")
            return Assignment(
                job_id=job.id,
                run_id=run.id,
                model=job.model_name,
                dataset_id=job.dataset_id,
                base_version=job.base_version,
                spec=job.spec,
                parameters=run.parameters,
                wish=Wish(job.desired_state),
            )

    def renew(self, claim: Claim) -> Wish:
        """Renew the lease; returns what the user wants."""
        with self._database.session() as session:
            wish = renew_lease(session, claim, self._times)
            touch_attempt(session, claim, last_heartbeat_at=now_milliseconds())
            return wish

    def tell(
        self,
        claim: Claim,
        type: str,
        message: str,
        *,
        level: Level = "info",
        payload: dict[str, Any] | None = None,
    ) -> Wish:
        """Add an event."""
        with self._database.session() as session:
            wish = renew_lease(session, claim, self._times)
            add_event(
                session, claim.job_id, claim.number, type, message, level=level, payload=payload
            )
            return wish

    def take_up(self, claim: Claim, run_id: str, step: int, versions: dict[str, str]) -> Wish:
        """Begin training after ``step``: deletes points measured beyond it."""
        with self._database.session() as session:
            wish = renew_lease(session, claim, self._times)
            gone = session.execute(
                delete(MetricPointRow)
                .where(MetricPointRow.run_id == run_id, MetricPointRow.step > step)
                .returning(MetricPointRow.step)
            ).all()
            changed: dict[str, Any] = {"versions": versions, "last_step": step}
            session.execute(update(RunRow).where(RunRow.id == run_id).values(**changed))
            touch_attempt(session, claim, last_progress_at=now_milliseconds())
            if step or gone:
                add_event(
                    session,
                    claim.job_id,
                    claim.number,
                    "resumed",
                    f"Training goes on after step {step:,}.",
                    payload={"step": step, "points_dropped": len(gone)},
                )
            return wish

    def record(
        self, claim: Claim, run_id: str, points: Sequence[Point], progress: JobProgress | None
    ) -> Wish:
        """Write measured points and the training's progress."""
        with self._database.session() as session:
            wish = renew_lease(session, claim, self._times)
            insert_points(session, run_id, claim.number, points)
            if progress is not None:
                stored = {**progress.__dict__}
                session.execute(
                    update(RunRow)
                    .where(RunRow.id == run_id)
                    .values(progress=stored, last_step=progress.step)
                )
                touch_attempt(session, claim, last_progress_at=now_milliseconds())
            return wish

    def to_publishing(self, claim: Claim) -> bool:
        """Begin to publish; False if the user has asked for something else."""
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            touch_attempt(session, claim, last_progress_at=None)
            moved = session.execute(
                update(JobRow)
                .where(
                    JobRow.id == claim.job_id,
                    JobRow.state.in_([JobState.RUNNING, JobState.PUBLISHING]),
                )
                .values(state=JobState.PUBLISHING)
                .returning(JobRow.id)
            ).one_or_none()
            if moved:
                add_event(
                    session, claim.job_id, claim.number, "publishing", "The model is written."
                )
            return moved is not None

    def succeed(self, claim: Claim, registry: Registry, staged: Staged) -> ModelVersion:
        """Make the staged file a version and the job succeeded, in one transaction.

        Returns another version than the staged one when the run had published
        already; the staged file is then to be unstaged.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times, frozenset({JobState.PUBLISHING}))
            version = registry.register(session, staged)
            end_attempt(
                session,
                claim,
                Ending(JobState.SUCCEEDED, f"{version.id} is published.", outcome="succeeded"),
                model_version=version.id,
            )
            return version

    def succeed_as(self, claim: Claim, version: ModelVersion) -> None:
        """End the job of a run that published already, before a crash."""
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            end_attempt(
                session,
                claim,
                Ending(JobState.SUCCEEDED, f"{version.id} is published.", outcome="succeeded"),
                model_version=version.id,
            )

    def stop(self, claim: Claim) -> bool:
        """Pause or cancel the job, as requested, instead of running on.

        False if the user has changed their mind and the job is to go on.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            state = JobState(
                session.execute(select(JobRow.state).where(JobRow.id == claim.job_id)).scalar_one()
            )
            if state not in (JobState.PAUSING, JobState.CANCELLING):
                return False
            end_attempt_as(session, claim, state)
            return True

    def release(self, claim: Claim, code: str, message: str, *, counted: bool = True) -> None:
        """Give the job back to be tried again: later if ``counted``, else at once.

        When no attempts are left, it fails with that code and message.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            retry = int(self._times.retry * 1000)
            ending = Ending(JobState.QUEUED, message, outcome="released", code=code)
            end_attempt(session, claim, ending, retry_ms=retry if counted else None)

    def fail(self, claim: Claim, code: str, message: str) -> None:
        """Fail the job; the message says why and what helps."""
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            end_attempt(
                session, claim, Ending(JobState.FAILED, message, outcome="failed", code=code)
            )
