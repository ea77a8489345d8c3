"""SQL about datasets.

Takes a session (one transaction, begun and ended by the caller). Knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import exists, select, tuple_
from sqlalchemy.orm import Session

from ..database.dataset_tables import DatasetRow
from ..database.job_states import FINAL
from ..database.job_tables import JobRow
from ..database.tables import now_milliseconds
from ..database.upserts import insert_or_leave
from ..errors import NotFound

Order = Literal["asc", "desc"]


def of_digest(session: Session, sha256: str) -> DatasetRow | None:
    """The dataset with this digest."""
    return session.scalar(select(DatasetRow).where(DatasetRow.sha256 == sha256))


def locked(session: Session, id: str) -> DatasetRow | None:
    """A dataset, locked: no new job can refer to it until this transaction ends."""
    return session.scalar(select(DatasetRow).where(DatasetRow.id == id).with_for_update())


def unknown_dataset(id: str) -> NotFound:
    """The error for the id of no dataset."""
    return NotFound(f"There is no dataset {id[:80]!r}.", code="dataset_not_found", param="dataset")


def add(session: Session, *, id: str, name: str, uri: str, described: dict[str, Any]) -> bool:
    """Insert a dataset; False, without changes, if one with the same bytes exists."""
    insert_or_leave(
        session,
        DatasetRow,
        id=id,
        name=name,
        format=described["format"],
        sha256=described["sha256"],
        size_bytes=described["bytes"],
        characters=described["characters"],
        records=described["records"],
        profile=described,
        uri=uri,
        created_at=now_milliseconds(),
    )
    return session.scalar(select(DatasetRow.uri).where(DatasetRow.id == id)) == uri


def page(
    session: Session, *, after: str | None, limit: int, order: Order
) -> Sequence[DatasetRow] | None:
    """Datasets in order of creation; None if ``after`` is the id of no dataset."""
    place = tuple_(DatasetRow.created_at, DatasetRow.id)
    query = select(DatasetRow).limit(limit)
    if order == "asc":
        query = query.order_by(DatasetRow.created_at, DatasetRow.id)
    else:
        query = query.order_by(DatasetRow.created_at.desc(), DatasetRow.id.desc())
    if after is not None:
        last = session.get(DatasetRow, after)
        if last is None:
            return None
        there = tuple_(last.created_at, last.id)
        query = query.where(place > there if order == "asc" else place < there)
    return session.scalars(query).all()


def in_use(session: Session, dataset_id: str) -> bool:
    """Whether a job that is not final needs this dataset."""
    using = exists().where(JobRow.dataset_id == dataset_id, JobRow.state.not_in(FINAL))
    return bool(session.scalar(select(using)))
