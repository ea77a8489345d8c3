"""The queue: add jobs, claim each once, and change their state as users request.

Takes a database; every method is one short transaction, the same on SQLite and
PostgreSQL. The central invariant: a job's state changes only by an UPDATE that
names the state before it, and a runner may write only while it holds the current
``lease_token``, which rises with every claim. ``runner_door`` has what runners do with a
claim, ``queries`` the queries about jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from ..catalog.deletions import Deletions
from ..database.job_states import FINAL
from ..database.job_tables import (
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
    """A job with every value chosen, ready to be queued."""

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
        """Queue a job; returns its id. The same key with the same job returns the first job's id.

        Raises Conflict when the key was used for another job, NotFound when the dataset is gone.
        """
        job_id = new_ulid()
        try:
            with self.database.session() as session:
                if idempotency_key is not None:
                    before = remember(session, idempotency_key, job.spec_hash, job_id)
                    if before is not None:
                        return before
                _insert(session, job_id, job)
                add_event(session, job_id, 0, "queued", _SAID[JobState.QUEUED])
        except IntegrityError as error:  # the dataset is a new job's only reference
            raise NotFound(
                "The dataset has just been deleted.", code="dataset_not_found", param="dataset"
            ) from error
        return job_id

    def made_by(self, idempotency_key: str, spec_hash: str) -> str | None:
        """The id of the job that this key made; raises Conflict if the request was different."""
        with self.database.session(read_only=True) as session:
            return remembered(session, idempotency_key, spec_hash)

    def claim(self, owner: str, executor: str) -> Claim | None:
        """Claim the most urgent job that is due; None if no job is due."""
        with self.database.session() as session:
            row = session.execute(_claim_next(owner, self.times)).one_or_none()
            if row is None:
                return None
            claim = Claim(*row)
            _insert_attempt(session, claim, executor)
            message = "A training process is being started."
            add_event(session, claim.job_id, claim.number, "claimed", message)
            return claim

    def is_due(self) -> bool:
        """Whether a job can be claimed now; takes no lock."""
        query = select(JobRow.id).where(
            JobRow.state == JobState.QUEUED, JobRow.not_before <= now_milliseconds()
        )
        with self.database.session(read_only=True) as session:
            return session.scalar(query.limit(1)) is not None

    def cancel(self, job_id: str) -> None:
        """Cancel the job; does nothing if it is already cancelled.

        Raises NotFound, and Conflict once publishing has begun.
        """
        self._move(job_id, CANCEL, Wish.CANCEL, "cancel")

    def pause(self, job_id: str) -> None:
        """Make the job write a checkpoint and free its slot; raises NotFound, Conflict."""
        self._move(job_id, PAUSE, Wish.PAUSE, "pause")

    def resume(self, job_id: str) -> None:
        """Queue a paused job again, or keep one running that is being paused.

        Raises NotFound, Conflict.
        """
        self._move(job_id, RESUME, Wish.RUN, "resume")

    def delete(self, job_id: str, deletions: Deletions, files: Iterable[str]) -> set[str]:
        """Delete a job in a final state with all its rows.

        In the same transaction, decides that ``files`` and those of its checkpoints must go;
        returns the keys of both.
        """
        with self.database.session() as session:
            job = _locked(session, job_id)
            if JobState(job.state) not in FINAL:
                raise _forbidden(job.state, "deleted", "Cancel it first.")
            run = select(RunRow.id).where(RunRow.job_id == job_id)
            keys = select(CheckpointRow.uri).where(CheckpointRow.run_id.in_(run))
            gone = {*files, *session.scalars(keys)}
            session.execute(
                delete(IdempotencyKeyRow).where(IdempotencyKeyRow.resource_id == job_id)
            )
            session.delete(job)
            deletions.decide(session, gone)
        return gone

    def counts(self, *, hurried: bool = False) -> dict[str, int]:
        """The number of jobs in each state that has any; see ``Database.hurried``."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        reading = self.database.hurried() if hurried else self.database.session(read_only=True)
        with reading as session:
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
    """The id of the next job to claim; one index entry is read, however many are queued."""
    return (
        select(JobRow.id)
        .where(JobRow.state == JobState.QUEUED, JobRow.not_before <= now_milliseconds())
        .order_by(JobRow.priority.desc(), JobRow.queued_at, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time
    )


def _claim_next(owner: str, times: Times) -> ReturningUpdate[str, int, int]:
    """Claim the next due job: one statement, so concurrent claims never take the same job."""
    return (
        update(JobRow)
        .where(JobRow.id == next_due().scalar_subquery(), JobRow.state == JobState.QUEUED)
        .values(
            state=JobState.STARTING,
            attempt_number=JobRow.attempt_number + 1,
            attempts_used=JobRow.attempts_used + 1,
            lease_token=JobRow.lease_token + 1,
            lease_owner=owner,
            lease_expires_at=now_milliseconds() + int(times.first_lease * 1000),
        )
        .returning(JobRow.id, JobRow.attempt_number, JobRow.lease_token)
        .execution_options(synchronize_session=False)
    )


def _insert_attempt(session: Session, claim: Claim, executor: str) -> None:
    session.execute(
        insert(AttemptRow).values(
            id=new_ulid(),
            job_id=claim.job_id,
            number=claim.number,
            token=claim.token,
            executor=executor,
            started_at=now_milliseconds(),
        )
    )


_ID: Final = re.compile(r"[0-9A-Z]{1,26}")
_SAID: Final[dict[JobState, str]] = {
    JobState.CANCELLED: "The job was cancelled.",
    JobState.CANCELLING: "The job is being cancelled.",
    JobState.PAUSED: "The job is paused.",
    JobState.PAUSING: "The job writes a checkpoint and then pauses.",
    JobState.QUEUED: "The job waits for a free slot.",
    JobState.RUNNING: "The job continues.",
}


def _locked(session: Session, job_id: str) -> JobRow:
    """The job's row, locked until the transaction ends; raises NotFound."""
    query = select(JobRow).where(JobRow.id == job_id).with_for_update()
    job = session.scalar(query) if is_id(job_id) else None
    if job is None:
        raise unknown_job(job_id)
    return job


def is_id(text: str) -> bool:
    """Whether this can be an id; PostgreSQL rejects some strings as parameters."""
    return _ID.fullmatch(text) is not None


def unknown_job(job_id: str) -> NotFound:
    """The error for an id that no job has."""
    return NotFound(f"There is no job {job_id[:80]!r}.", code="job_not_found", param="id")


def _forbidden(state: str, verb: str, advice: str) -> Conflict:
    return Conflict(f"The job is {state} and cannot be {verb}. {advice}".strip(), code="job_state")


def _insert(session: Session, job_id: str, job: NewJob) -> None:
    """Insert the job and its run."""
    _insert_job(session, job_id, job)
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


def _insert_job(session: Session, job_id: str, job: NewJob) -> None:
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
