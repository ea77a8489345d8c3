"""A runner's door to the database: everything it writes about its job, under its lease.

Takes a database and a ``Claim``; every method is one transaction that first renews the lease
by its token (``lease``). If the token is stale, the method raises LeaseLost and writes
nothing: a runner that was replaced can no longer touch the job. The renewal also locks the
job's row, so a takeover waits until the write is complete. Knows nothing of files or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, case, delete, func, select, update

from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..catalog.synchronising import Staged
from ..database.job_tables import JobRow, MetricPointRow, RunRow
from ..database.session import Database
from ..database.tables import now_milliseconds
from .attempt_end import Ending, end_attempt, end_attempt_as
from .checkpoints.rows import CheckpointRows
from .events import add_event
from .lease import renew_lease, touch_attempt
from .points import insert_points
from .samples import delete_samples, insert_samples
from .states import JobState, Wish
from .times import Times
from .values import Claim, JobProgress, Level, Point, Sample


@dataclass(frozen=True)
class Assignment:
    """What a runner needs to know about its job."""

    job_id: str
    run_id: str
    model: str
    dataset_id: str | None
    base_version: str | None
    spec: dict[str, Any]
    parameters: dict[str, Any]
    wish: Wish


class RunnerDoor:
    """A runner's access to the database; safe to share between its threads."""

    def __init__(self, database: Database, times: Times | None = None) -> None:
        self._database = database
        self._times = times or Times()
        self.checkpoints = CheckpointRows(database, self._times)

    def begin(self, claim: Claim, *, host: str, pid: int, pid_started: float) -> Assignment:
        """Report the runner's process and mark the job as running; returns what to do.

        ``pid_started`` is in seconds from the machine's start.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            session.execute(_to_running(claim))
            touch_attempt(session, claim, host=host, pid=pid, pid_started=pid_started)
            query = select(JobRow, RunRow).join(RunRow, RunRow.job_id == JobRow.id)
            job, run = session.execute(query.where(JobRow.id == claim.job_id)).one()
            add_event(session, job.id, claim.number, "started", "The training process has started.")
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
        """Report that training continues after ``step``; deletes what was measured beyond it."""
        with self._database.session() as session:
            wish = renew_lease(session, claim, self._times)
            gone = session.execute(
                delete(MetricPointRow)
                .where(MetricPointRow.run_id == run_id, MetricPointRow.step > step)
                .returning(MetricPointRow.step)
            ).all()
            delete_samples(session, run_id, after=step)
            changed: dict[str, Any] = {"versions": versions, "last_step": step}
            session.execute(update(RunRow).where(RunRow.id == run_id).values(**changed))
            touch_attempt(session, claim, last_progress_at=now_milliseconds())
            if step or gone:
                add_event(
                    session,
                    claim.job_id,
                    claim.number,
                    "resumed",
                    f"Training continues after step {step:,}.",
                    payload={"step": step, "points_dropped": len(gone)},
                )
            return wish

    def record(
        self,
        claim: Claim,
        run_id: str,
        points: Sequence[Point],
        progress: JobProgress | None,
        samples: Sequence[Sample] = (),
    ) -> Wish:
        """Write measured points, samples and the training's progress."""
        with self._database.session() as session:
            wish = renew_lease(session, claim, self._times)
            insert_points(session, run_id, claim.number, points)
            insert_samples(session, run_id, claim.number, samples)
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
        """Move the job to publishing; False if the user has requested a pause or cancel."""
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
                    session, claim.job_id, claim.number, "publishing", "The model is being written."
                )
            return moved is not None

    def succeed(self, claim: Claim, registry: Registry, staged: Staged) -> ModelVersion:
        """Register the staged file as a version and end the job as succeeded, in one transaction.

        If the run has published before, returns that version instead; the caller must then
        unstage the file.
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
        """End the job of a run that had published before a crash."""
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            end_attempt(
                session,
                claim,
                Ending(JobState.SUCCEEDED, f"{version.id} is published.", outcome="succeeded"),
                model_version=version.id,
            )

    def stop(self, claim: Claim) -> bool:
        """Pause or cancel the job, as requested; False if it is to continue after all."""
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
        """Give the job back to be tried again: later if ``counted``, otherwise at once.

        If a counted attempt was the last, the job fails with that code and message.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            retry = int(self._times.retry * 1000)
            ending = Ending(JobState.QUEUED, message, outcome="released", code=code)
            end_attempt(session, claim, ending, retry_ms=retry if counted else None)

    def fail(self, claim: Claim, code: str, message: str) -> None:
        """Fail the job; the message says why and what to do."""
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            end_attempt(
                session, claim, Ending(JobState.FAILED, message, outcome="failed", code=code)
            )


def _to_running(claim: Claim) -> Update:
    """Set the time of the first start; a starting job becomes running."""
    return (
        update(JobRow)
        .where(JobRow.id == claim.job_id)
        .values(
            started_at=func.coalesce(JobRow.started_at, now_milliseconds()),
            state=case((JobRow.state == JobState.STARTING, JobState.RUNNING), else_=JobRow.state),
        )
    )
