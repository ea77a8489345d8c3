"""What the network of a run wrote as it learned: one text for each evaluation.

Takes a session. Knows nothing of leases.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ..database.job_tables import RunSampleRow
from ..database.upserts import insert_or_replace
from .values import Order, Page, Sample


def insert_samples(session: Session, run_id: str, attempt: int, samples: Sequence[Sample]) -> None:
    """Write samples; replace those of the same steps."""
    rows = [
        {
            "run_id": run_id,
            "step": each.step,
            "attempt_number": attempt,
            "wall_ms": each.at,
            "text": each.text,
        }
        for each in samples
    ]
    insert_or_replace(session, RunSampleRow, rows, ["run_id", "step"])


def delete_samples(session: Session, run_id: str, after: int) -> None:
    """Delete the samples of later steps, which will be taken again."""
    session.execute(
        delete(RunSampleRow).where(RunSampleRow.run_id == run_id, RunSampleRow.step > after)
    )


def read_samples(
    session: Session, run_id: str, *, after: int | None, limit: int, order: Order
) -> Page[Sample]:
    """Samples by step, those after the step ``after``."""
    step = RunSampleRow.step
    query = select(RunSampleRow).where(RunSampleRow.run_id == run_id)
    if after is not None:
        query = query.where(step > after if order == "asc" else step < after)
    query = query.order_by(step if order == "asc" else step.desc()).limit(limit + 1)
    found = [Sample(row.step, row.wall_ms, row.text) for row in session.scalars(query)]
    return Page(found[:limit], len(found) > limit)
