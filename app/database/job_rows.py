"""SQL about jobs that more than one part of the program needs.

Takes a session (one transaction, begun and ended by the caller). What moves a
job between states is ``app.jobs``' own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exists, insert, select
from sqlalchemy.orm import Session

from app.database.job_tables import FINAL, EventRow, JobRow
from app.database.tables import now_milliseconds


def dataset_in_use(session: Session, dataset_id: str) -> bool:
    """Whether a job that is not final needs this dataset."""
    using = exists().where(JobRow.dataset_id == dataset_id, JobRow.state.not_in(FINAL))
    return bool(session.scalar(select(using)))


def add_event(
    session: Session,
    job_id: str,
    attempt_number: int,
    type: str,
    message: str,
    *,
    level: str = "info",
    payload: dict[str, Any] | None = None,
) -> None:
    """Append to a job's history.

    Its row must be locked by this transaction (updated, or selected for update):
    then no reader who has seen one event can miss one before it.
    """
    session.execute(
        insert(EventRow).values(
            job_id=job_id,
            attempt_number=attempt_number,
            at=now_milliseconds(),
            level=level,
            type=type,
            # PostgreSQL's text cannot hold a NUL.
            message=message.replace("\0", "�"),
            payload=payload or {},
        )
    )
