"""End an attempt, for its runner or for a dispatcher that found the runner gone.

Takes a session in which the job's row is locked; moves the job to its next state, closes
the attempt and adds an event. The caller gives the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ..database.job_states import FINAL
from ..database.job_tables import AttemptRow, JobRow
from ..database.tables import now_milliseconds
from .events import add_event
from .states import LOST, JobState
from .values import Claim, Level

_LONGEST_DOUBLING: Final = 6


@dataclass(frozen=True)
class Ending:
    """The job's next state and why; ``code`` and ``message`` become its error if it fails."""

    state: JobState
    message: str
    outcome: str
    code: str | None = None
    exit_code: int | None = None
    payload: dict[str, Any] | None = None


def end_attempt_as(session: Session, claim: Claim, state: JobState) -> None:
    """Pause or cancel a job that is pausing or cancelling."""
    after = LOST[state]
    end_attempt(session, claim, Ending(after, f"The job is {after}.", outcome=after))


def end_attempt(
    session: Session,
    claim: Claim,
    ending: Ending,
    *,
    retry_ms: int | None = None,
    model_version: str | None = None,
) -> JobState:
    """Move the job to its next state and close the attempt; returns that state.

    A job that is queued again waits ``retry_ms``, doubled with every attempt since the last
    checkpoint. With None, it is due at once and the attempt is not counted.
    """
    job = session.execute(select(JobRow).where(JobRow.id == claim.job_id)).scalar_one()
    after, level = _moved_on(job, ending.state, counted=retry_ms is not None)
    values = _job_values(job, after, ending, retry_ms)
    if model_version is not None:
        values |= {"model_version": model_version}
    session.execute(update(JobRow).where(JobRow.id == claim.job_id).values(**values))
    _close(session, claim, ending)
    add_event(
        session,
        claim.job_id,
        claim.number,
        after,
        ending.message,
        level=level,
        payload=ending.payload,
    )
    return after


def _moved_on(job: JobRow, wanted: JobState, *, counted: bool) -> tuple[JobState, Level]:
    """The next state of a job whose attempt ends, and the level of the event.

    A job to be queued again fails if a ``counted`` attempt was its last. If a pause or
    cancel was requested, it takes effect instead of queueing; a cancel also instead of failing.
    """
    after = LOST[JobState(job.state)] if wanted == JobState.QUEUED else wanted
    if after == JobState.FAILED and job.state == JobState.CANCELLING:
        return JobState.CANCELLED, "info"
    if wanted == JobState.QUEUED == after and counted:
        if job.attempts_used < job.max_attempts:
            return JobState.QUEUED, "warning"
        after = JobState.FAILED
    return after, "error" if after == JobState.FAILED else "info"


def _job_values(
    job: JobRow, after: JobState, ending: Ending, retry_ms: int | None
) -> dict[str, Any]:
    """What changes in the job's row when it moves to ``after``."""
    values: dict[str, Any] = {"state": after, "lease_owner": None, "lease_expires_at": None}
    if after == JobState.FAILED:
        values |= {"error_code": ending.code or "failed", "error": ending.message}
    if after == JobState.QUEUED:
        values |= _queued_again(job, retry_ms)
    if after in FINAL:
        values |= {"finished_at": now_milliseconds()}
    return values


def _queued_again(job: JobRow, retry_ms: int | None) -> dict[str, Any]:
    """When a job is due again: without ``retry_ms`` at once, and the attempt is not counted."""
    if retry_ms is None:
        return {"not_before": now_milliseconds(), "attempts_used": max(0, job.attempts_used - 1)}
    doublings = min(max(0, job.attempts_used - 1), _LONGEST_DOUBLING)
    return {"not_before": now_milliseconds() + (retry_ms << doublings)}


def _close(session: Session, claim: Claim, ending: Ending) -> None:
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == claim.job_id, AttemptRow.number == claim.number)
        .values(ended_at=now_milliseconds(), outcome=ending.outcome, exit_code=ending.exit_code)
    )
