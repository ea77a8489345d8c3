"""Requests that may be sent twice: a client's key finds the job that it made, for a day.

Takes a session; the key and its job are stored in one transaction, so if two equal requests
arrive at once, one makes the job and the other finds it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ..database.job_tables import IdempotencyKeyRow
from ..database.tables import now_milliseconds
from ..database.upserts import insert_or_leave
from ..errors import Conflict

_DAY: Final = 86_400_000


def remembered(session: Session, key: str, spec_hash: str) -> str | None:
    """The id of the job that the key made; raises Conflict if the request was different."""
    row = session.scalar(
        select(IdempotencyKeyRow).where(
            IdempotencyKeyRow.key == key, IdempotencyKeyRow.expires_at > now_milliseconds()
        )
    )
    if row is None:
        return None
    if row.request_hash != spec_hash:
        raise Conflict(
            "This idempotency key was used for another job; use a new one.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    return row.resource_id


def remember(session: Session, key: str, spec_hash: str, job_id: str) -> str | None:
    """Store the key for a day; returns the id of the job that it made before, if any."""
    session.execute(
        delete(IdempotencyKeyRow).where(IdempotencyKeyRow.expires_at <= now_milliseconds())
    )
    insert_or_leave(
        session,
        IdempotencyKeyRow,
        key=key,
        request_hash=spec_hash,
        resource_id=job_id,
        expires_at=now_milliseconds() + _DAY,
    )
    found = remembered(session, key, spec_hash)
    return None if found == job_id else found
