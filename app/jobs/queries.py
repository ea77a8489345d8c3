"""Queries about jobs, runs, events and checkpoints.

Takes a session that may be read-only; gives frozen values. Lists are in order of ids, which
is the order of creation, so a page does not change while jobs are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from ..charlm.sizing import Chosen
from ..database.job_states import LEASED
from ..database.job_tables import AttemptRow, CheckpointRow, EventRow, JobRow, RunRow
from ..database.tables import now_milliseconds
from ..errors import NotFound
from ..store.layout import is_name
from .queue import is_id, unknown_job
from .spec import DATASET_PREFIX, in_order
from .states import JobState, Wish
from .values import CheckpointInfo, Claim, Event, Job, JobError, JobProgress, Order, Page, Run


@dataclass(frozen=True)
class ActiveAttempt:
    """An attempt that holds a job, as dispatchers see it; times in milliseconds."""

    claim: Claim
    state: JobState
    owner: str
    executor: str
    reference: str | None
    heartbeat: int | None  # when a runner with nothing to write last renewed the lease
    late: int  # since the lease expired; negative while it holds
    idle: int | None  # since the last progress; None when none is expected


def read_job(session: Session, job_id: str) -> Job:
    """One job; raises NotFound."""
    query = _jobs().where(JobRow.id == job_id)
    row = session.execute(query).one_or_none() if is_id(job_id) else None
    if row is None:
        raise unknown_job(job_id)
    return _job(row)


def list_jobs(
    session: Session,
    *,
    state: JobState | None = None,
    model: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[Job]:
    """Jobs by time of creation, newest first unless ``order`` says otherwise."""
    query = _page(_jobs(), JobRow.id, after, limit, order)
    if state is not None:
        query = query.where(JobRow.state == state)
    if model is not None:
        if not is_name(model):
            return Page([], False)
        query = query.where(JobRow.model_name == model)
    rows = session.execute(query).all()
    return Page([_job(row) for row in rows[:limit]], len(rows) > limit)


def read_run(session: Session, run_id: str) -> Run:
    """One run; raises NotFound."""
    query = _jobs().where(RunRow.id == run_id)
    row = session.execute(query).one_or_none() if is_id(run_id) else None
    if row is None:
        raise NotFound(f"There is no run {run_id[:80]!r}.", code="run_not_found", param="id")
    return _run(row)


def list_runs(
    session: Session,
    *,
    model: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[Run]:
    """Runs by time of creation."""
    query = _page(_jobs(), RunRow.id, after, limit, order)
    if model is not None:
        if not is_name(model):
            return Page([], False)
        query = query.where(JobRow.model_name == model)
    rows = session.execute(query).all()
    return Page([_run(row) for row in rows[:limit]], len(rows) > limit)


def read_events(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
    """Events of a job after a cursor, in order."""
    query = (
        select(EventRow)
        .where(EventRow.job_id == job_id, EventRow.id > after)
        .order_by(EventRow.id)
        .limit(limit)
    )
    return [
        Event(
            id=row.id,
            job_id=row.job_id,
            attempt=row.attempt_number,
            at=row.at,
            level=row.level,
            type=row.type,
            message=row.message,
            payload=row.payload,
        )
        for row in session.scalars(query)
    ]


def read_checkpoints(session: Session, run_id: str) -> list[CheckpointInfo]:
    """Checkpoints of a run, the furthest first."""
    query = (
        select(CheckpointRow)
        .where(CheckpointRow.run_id == run_id)
        .order_by(CheckpointRow.step.desc(), CheckpointRow.id.desc())
    )
    return [checkpoint_info(row) for row in session.scalars(query)]


def read_active(session: Session) -> list[ActiveAttempt]:
    """Every attempt that holds a job now."""
    return [
        ActiveAttempt(
            claim=Claim(job_id, number, token),
            state=JobState(state),
            owner=owner or "",
            executor=executor,
            reference=reference,
            heartbeat=heartbeat,
            late=late,
            idle=idle,
        )
        for (
            job_id, number, token, state, owner, executor, reference, heartbeat, late, idle,
        ) in session.execute(_active())
    ]  # fmt: skip


def _active() -> Select[*tuple[Any, ...]]:
    now = now_milliseconds()
    return (
        select(
            JobRow.id,
            JobRow.attempt_number,
            JobRow.lease_token,
            JobRow.state,
            JobRow.lease_owner,
            AttemptRow.executor,
            AttemptRow.executor_ref,
            AttemptRow.last_heartbeat_at,
            now - JobRow.lease_expires_at,
            now - AttemptRow.last_progress_at,
        )
        .join(
            AttemptRow,
            (AttemptRow.job_id == JobRow.id) & (AttemptRow.number == JobRow.attempt_number),
        )
        .where(JobRow.state.in_(LEASED))
        .order_by(JobRow.id)
    )


def checkpoint_info(row: CheckpointRow) -> CheckpointInfo:
    """A row as a value without its session."""
    return CheckpointInfo(
        id=row.id,
        run_id=row.run_id,
        attempt=row.attempt_number,
        step=row.step,
        epoch=row.epoch,
        kind=row.kind,
        uri=row.uri,
        size_bytes=row.bytes,
        sha256=row.sha256,
        metrics=row.metrics,
        created_at=row.created_at,
    )


def _jobs() -> Select[JobRow, RunRow]:
    return select(JobRow, RunRow).join(RunRow, RunRow.job_id == JobRow.id)


def _page(
    query: Select[JobRow, RunRow], column: Any, after: str | None, limit: int, order: Order
) -> Select[JobRow, RunRow]:
    """A query for one row more than ``limit``, to see whether there are more."""
    if after is not None and is_id(after):
        query = query.where(column > after if order == "asc" else column < after)
    return query.order_by(column if order == "asc" else column.desc()).limit(limit + 1)


def _job(row: Row[JobRow, RunRow]) -> Job:
    job, run = row
    return Job(
        id=job.id,
        run_id=run.id,
        model=job.model_name,
        dataset=str(job.spec["dataset"]).removeprefix(DATASET_PREFIX),
        base_model=job.base_version,
        parent=job.parent_job_id,
        state=JobState(job.state),
        desired=Wish(job.desired_state),
        priority=job.priority,
        spec=in_order(job.spec),
        chosen=tuple(
            Chosen(tuple(each["fields"]), each["reason"]) for each in job.chosen["values"]
        ),
        attempt=job.attempt_number,
        max_attempts=job.max_attempts,
        progress=JobProgress.of(run.progress),
        model_version=job.model_version,
        error=JobError(job.error_code, job.error or "") if job.error_code else None,
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _run(row: Row[JobRow, RunRow]) -> Run:
    job, run = row
    return Run(
        id=run.id,
        job_id=job.id,
        model=job.model_name,
        state=JobState(job.state),
        parameters=run.parameters,
        tags=run.tags,
        seed=run.seed,
        versions=run.versions,
        last_step=run.last_step,
        progress=JobProgress.of(run.progress),
        model_version=job.model_version,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
