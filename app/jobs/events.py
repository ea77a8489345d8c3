"""A job's history: events, appended in the transaction that makes the change.

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

    This transaction must have locked the job's row (by UPDATE or SELECT FOR UPDATE): then no
    reader who has seen an event can miss an earlier one.
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
