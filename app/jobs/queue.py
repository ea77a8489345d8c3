"""The queue: add jobs, claim each once, and change their state as users ask.

Takes a database; every method is one short transaction, the same on SQLite and
PostgreSQL. The central invariant: a job's state changes only by an UPDATE that
names the state before it, and what a runner may write hangs on ``lease_token``,
which rises with every claim. What runners do with a claim is in
``runner_door``; queries about jobs, in ``queries``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..database.job_tables import (
    FINAL,
    AttemptRow,
    CheckpointRow,
    IdempotencyKeyRow,
    JobRow,
    RunRow,
)
from ..database.session import Database
from ..database.tables import new_ulid, now_milliseconds
from ..errors import Conflict, NotFound
from .events import add_event
from .idempotency import remember, remembered
from .states import CANCEL, PAUSE, RESUME, JobState, Wish
from .times import Times
from .values import Claim


@dataclass(frozen=True)
class NewJob:
    """A job with nothing left open, ready to be queued."""

    model: str
    dataset_id: str
    base_version: str | None
    spec: dict[str, Any]
    spec_hash: str
    chosen: list[dict[str, Any]]  # fields and reason of each
    parameters: dict[str, Any]
    tags: dict[str, Any]
    seed: int
    priority: int = 0
    max_attempts: int = 3
    parent: str | None = None


class Queue:
    """The job queue in a database; safe to share between threads, processes and servers."""

    def __init__(self, database: Database, times: Times | None = None) -> None:
        self.database = database
        self.times = times or Times()

    def submit(self, job: NewJob, *, idempotency_key: str | None = None) -> str:
        """Queue a job; returns its id. The same key with the same job returns the job it made.

        Raises Conflict when the key has made another job.
        """
        job_id = new_ulid()
        try:
            with self.database.session() as session:
                if idempotency_key is not None:
                    before = remember(session, idempotency_key, job.spec_hash, job_id)
                    if before is not None:
                        return before
                _insert(session, job_id, job)
                add_event(session, job_id, 0, "queued", "The job waits for a free slot.")
        except IntegrityError as error:  # the one reference of a new job
            raise NotFound(
                "The dataset has just been deleted.", code="dataset_not_found", param="dataset"
            ) from error
        return job_id

    def made_by(self, idempotency_key: str, spec_hash: str) -> str | None:
        """The job that this key made; raises Conflict if the request was a different one."""
        with self.database.session(read_only=True) as session:
            return remembered(session, idempotency_key, spec_hash)

    def claim(self, owner: str, executor: str) -> Claim | None:
        """Take the most urgent job that is due, if there is one.

        One statement: a job is claimed once however many claim at a time.
        """
        claim = (
            update(JobRow)
            .where(JobRow.id == next_due().scalar_subquery(), JobRow.state == JobState.QUEUED)
            .values(
                state=JobState.STARTING,
                attempt_number=JobRow.attempt_number + 1,
                attempts_used=JobRow.attempts_used + 1,
                lease_token=JobRow.lease_token + 1,
                lease_owner=owner,
                lease_expires_at=now_milliseconds() + int(self.times.first_lease * 1000),
            )
            .returning(JobRow.id, JobRow.attempt_number, JobRow.lease_token)
            .execution_options(synchronize_session=False)
        )
        with self.database.session() as session:
            row = session.execute(claim).one_or_none()
            if row is None:
                return None
            claimed = Claim(*row)
            session.execute(
                insert(AttemptRow).values(
                    id=new_ulid(),
                    job_id=claimed.job_id,
                    number=claimed.number,
                    token=claimed.token,
                    executor=executor,
                    started_at=now_milliseconds(),
                )
            )
            add_event(
                session, claimed.job_id, claimed.number, "claimed", "A training process is started."
            )
            return claimed

    def is_due(self) -> bool:
        """Whether a job can be claimed now; takes no lock."""
        query = select(JobRow.id).where(
            JobRow.state == JobState.QUEUED, JobRow.not_before <= now_milliseconds()
        )
        with self.database.session(read_only=True) as session:
            return session.scalar(query.limit(1)) is not None

    def cancel(self, job_id: str) -> None:
        """Cancel the job; does nothing if it is cancelled already.

        Raises NotFound, and Conflict once publishing has begun.
        """
        self._move(job_id, CANCEL, Wish.CANCEL, "cancel")

    def pause(self, job_id: str) -> None:
        """Let the job write a checkpoint and give its slot back; raises NotFound, Conflict."""
        self._move(job_id, PAUSE, Wish.PAUSE, "pause")

    def resume(self, job_id: str) -> None:
        """Queue a paused job again, or let one that is being paused go on."""
        self._move(job_id, RESUME, Wish.RUN, "resume")

    def delete(self, job_id: str) -> list[str]:
        """Delete a job in a final state with all its rows; returns the keys of its checkpoints."""
        with self.database.session() as session:
            job = _locked(session, job_id)
            if JobState(job.state) not in FINAL:
                raise _forbidden(job.state, "deleted", "Cancel it first.")
            run = select(RunRow.id).where(RunRow.job_id == job_id)
            keys = select(CheckpointRow.uri).where(CheckpointRow.run_id.in_(run))
            found = list(session.scalars(keys))
            session.execute(
                delete(IdempotencyKeyRow).where(IdempotencyKeyRow.resource_id == job_id)
            )
            session.delete(job)
        return found

    def counts(self) -> dict[str, int]:
        """The number of jobs in each state that has any."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        with self.database.session(read_only=True) as session:
            return dict(session.execute(query).all())

    def _move(self, job_id: str, table: Mapping[JobState, JobState], wish: Wish, verb: str) -> None:
        with self.database.session() as session:
            job = _locked(session, job_id)
            before = JobState(job.state)
            after = table.get(before)
            if after is None:
                raise _forbidden(before, f"{verb}d" if verb[-1] == "e" else f"{verb}led", "")
            if after == before:
                return
            job.state, job.desired_state = after, wish
            if after == JobState.QUEUED:
                job.queued_at = job.not_before = session.execute(
                    select(now_milliseconds())
                ).scalar_one()
            if after in FINAL:
                job.finished_at = session.execute(select(now_milliseconds())).scalar_one()
            session.flush()
            add_event(session, job_id, job.attempt_number, after, _SAID[after])


def next_due() -> Select[str]:
    """The id of the job to be claimed next; read from the index, however many are queued."""
    return (
        select(JobRow.id)
        .where(JobRow.state == JobState.QUEUED, JobRow.not_before <= now_milliseconds())
        .order_by(JobRow.priority.desc(), JobRow.queued_at, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time
    )


_ID: Final = re.compile(r"[0-9A-Z]{1,26}")
_SAID: Final[dict[JobState, str]] = {
    JobState.CANCELLED: "The job was cancelled.",
    JobState.CANCELLING: "The job is being cancelled.",
    JobState.PAUSED: "The job is paused.",
    JobState.PAUSING: "The job writes a checkpoint and pauses.",
    JobState.QUEUED: "The job waits for a free slot.",
    JobState.RUNNING: "The job goes on.",
}


def _locked(session: Session, job_id: str) -> JobRow:
    """The job's row, locked until the transaction ends; raises NotFound."""
    query = select(JobRow).where(JobRow.id == job_id).with_for_update()
    job = session.scalar(query) if is_id(job_id) else None
    if job is None:
        raise unknown_job(job_id)
    return job


def is_id(text: str) -> bool:
    """Whether this can be an id; PostgreSQL refuses some texts as parameters."""
    return _ID.fullmatch(text) is not None


def unknown_job(job_id: str) -> NotFound:
    """The error for an id that no job has."""
    return NotFound(f"There is no job {job_id[:80]!r}.", code="job_not_found", param="id")


def _forbidden(state: str, verb: str, advice: str) -> Conflict:
    return Conflict(f"The job is {state} and cannot be {verb}. {advice}".strip(), code="job_state")


def _insert(session: Session, job_id: str, job: NewJob) -> None:
    now = session.execute(select(now_milliseconds())).scalar_one()
    session.execute(
        insert(JobRow).values(
            id=job_id,
            spec=job.spec,
            spec_hash=job.spec_hash,
            chosen={"values": job.chosen},
            dataset_id=job.dataset_id,
            model_name=job.model,
            base_version=job.base_version,
            parent_job_id=job.parent,
            state=JobState.QUEUED,
            desired_state=Wish.RUN,
            priority=job.priority,
            queued_at=now,
            not_before=now,
            attempt_number=0,
            attempts_used=0,
            max_attempts=job.max_attempts,
            lease_token=0,
            created_at=now,
        )
    )
    session.execute(
        insert(RunRow).values(
            id=new_ulid(),
            job_id=job_id,
            parameters=job.parameters,
            tags=job.tags,
            seed=job.seed,
            versions={},
            last_step=0,
            progress={},
        )
    )
