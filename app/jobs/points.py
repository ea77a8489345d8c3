"""The curves of runs: points written in batches, read as buckets.

Takes a session. A value that is not finite is stored with its kind (nan, inf), so that a
diverged loss is visible. Knows nothing of leases.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..database.job_tables import MetricNameRow, MetricPointRow
from ..database.upserts import insert_or_leave, insert_or_replace
from .values import Bucket, Point, Series

MOST_BUCKETS: Final = 1000


def insert_points(session: Session, run_id: str, attempt: int, points: Sequence[Point]) -> None:
    """Write points; replace those that exist."""
    if not points:
        return
    ids = _name_ids(session, {point.name for point in points})
    rows = [
        {
            "run_id": run_id,
            "name_id": ids[point.name],
            "step": point.step,
            "attempt_number": attempt,
            "wall_ms": point.at,
            "value": point.value if math.isfinite(point.value) else 0.0,
            "kind": "finite" if math.isfinite(point.value) else str(float(point.value)),
        }
        for point in points
    ]
    insert_or_replace(session, MetricPointRow, rows, ["run_id", "name_id", "step"])


def read_series(
    session: Session, run_id: str, names: Sequence[str] | None, max_points: int
) -> list[Series]:
    """The metrics of a run, all or those in ``names``, in at most ``max_points`` buckets each."""
    metrics = select(MetricNameRow.id, MetricNameRow.name).order_by(MetricNameRow.name)
    if names is not None:
        metrics = metrics.where(MetricNameRow.name.in_(names))
    found = []
    for name_id, name in session.execute(metrics).all():
        query = (
            select(
                MetricPointRow.step,
                MetricPointRow.wall_ms,
                MetricPointRow.value,
                MetricPointRow.kind,
            )
            .where(MetricPointRow.run_id == run_id, MetricPointRow.name_id == name_id)
            .order_by(MetricPointRow.step)
        )
        rows = session.execute(query).all()
        if rows:
            found.append(Series(name, _buckets(rows, max_points)))
    return found


def _buckets(rows: Sequence[tuple[int, int, float, str]], most: int) -> tuple[Bucket, ...]:
    """Merge neighbouring points into at most ``most`` buckets; min and max keep spikes."""
    count = min(len(rows), max(1, min(most, MOST_BUCKETS)))
    bounds = (len(rows) * bucket // count for bucket in range(count + 1))
    return tuple(_bucket(rows[begin:end]) for begin, end in itertools.pairwise(bounds))


def _bucket(rows: Sequence[tuple[int, int, float, str]]) -> Bucket:
    finite = [value for _, _, value, kind in rows if kind == "finite"]
    first, last, at, count = rows[0][0], rows[-1][0], rows[-1][1], len(rows)
    if not finite:
        return Bucket(first, last, at, count, None, None, None, None, count)
    return Bucket(
        first,
        last,
        at,
        count,
        min(finite),
        max(finite),
        math.fsum(finite) / len(finite),
        finite[-1],
        count - len(finite),
    )


def _name_ids(session: Session, names: set[str]) -> dict[str, int]:
    query = select(MetricNameRow.name, MetricNameRow.id).where(MetricNameRow.name.in_(names))
    known = dict(session.execute(query).all())
    # Sorted, so that two runs with new names insert and lock them in the same order.
    for name in sorted(names - set(known)):
        insert_or_leave(session, MetricNameRow, name=name)
    if len(known) < len(names):
        known = dict(session.execute(query).all())
    return known
