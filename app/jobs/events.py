"""A job's history: events, appended in the transaction of what happened.

Takes a session (one transaction, begun and ended by the caller).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from ..database.job_tables import EventRow
from ..database.tables import now_milliseconds


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

    The job's row must be locked by this transaction (updated, or selected for update):
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
