"""How an attempt ends, whoever ends it: its runner, or a dispatcher that found it gone.

Takes a session in which the job's row is locked; moves the job on, closes the
attempt and says so in an event. Knows no reasons of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ..database.job_tables import FINAL, AttemptRow, JobRow
from ..database.tables import now_milliseconds
from .events import add_event
from .states import LOST, JobState
from .values import Claim, Level

_LONGEST_DOUBLING: Final = 6


@dataclass(frozen=True)
class Ending:
    """Where the job goes, and why; ``code`` and ``message`` become its error if it fails."""

    state: JobState
    message: str
    outcome: str
    code: str | None = None
    exit_code: int | None = None
    payload: dict[str, Any] | None = None


def end_attempt_as(session: Session, claim: Claim, state: JobState) -> None:
    """End a job that is pausing or cancelling as what was wanted of it."""
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
    """Move the job on and close the attempt; the state it is in now.

    Back to the queue is for as long as attempts are left: each waits
    ``retry_ms``, doubled with every attempt since the last checkpoint. None
    gives the attempt back, uncounted. A job that was to be paused or cancelled
    is so now, whatever ended the attempt.
    """
    job = session.execute(select(JobRow).where(JobRow.id == claim.job_id)).scalar_one()
    after, level = ending.state, _level(ending.state)
    if after == JobState.QUEUED:
        after = LOST[JobState(job.state)]
        if after == JobState.QUEUED and retry_ms is not None:
            level = "warning"
            if job.attempts_used >= job.max_attempts:
                after, level = JobState.FAILED, "error"
    elif after == JobState.FAILED and job.state == JobState.CANCELLING:
        after, level = JobState.CANCELLED, "info"
    now = now_milliseconds()
    values: dict[str, Any] = {"state": after, "lease_owner": None, "lease_expires_at": None}
    if after == JobState.FAILED:
        values |= {"error_code": ending.code or "failed", "error": ending.message}
    if after == JobState.QUEUED:
        used = job.attempts_used
        wait = 0 if retry_ms is None else retry_ms << min(max(0, used - 1), _LONGEST_DOUBLING)
        values |= {"not_before": now + wait}
        if retry_ms is None:
            values |= {"attempts_used": max(0, used - 1)}
    if after in FINAL:
        values |= {"finished_at": now}
    if model_version is not None:
        values |= {"model_version": model_version}
    session.execute(update(JobRow).where(JobRow.id == claim.job_id).values(**values))
    session.execute(
        update(AttemptRow)
        .where(AttemptRow.job_id == claim.job_id, AttemptRow.number == claim.number)
        .values(ended_at=now, outcome=ending.outcome, exit_code=ending.exit_code)
    )
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


def _level(state: JobState) -> Level:
    return "error" if state == JobState.FAILED else "info"
