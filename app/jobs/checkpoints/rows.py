"""The rows of checkpoints, written by the holder of a lease.

A checkpoint's file is written first; its row is added here, in a transaction that holds the
lease. Returns the keys of files that are no longer needed, for the caller to delete.
Knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from ...database.job_tables import CheckpointRow, JobRow
from ...database.session import Database
from ...database.tables import new_ulid, now_milliseconds
from ..events import add_event
from ..lease import renew_lease
from ..queries import read_checkpoints
from ..times import Times
from ..values import CheckpointInfo, CheckpointKind, Claim

_KEPT: Final = (("periodic", 2), ("best", 1), ("final", 1))


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint's file, stored and verified, that has no row yet."""

    step: int
    epoch: int
    kind: CheckpointKind
    uri: str
    sha256: str
    size_bytes: int
    metrics: dict[str, Any]


class CheckpointRows:
    """Checkpoints in the database; safe to share between threads."""

    def __init__(self, database: Database, times: Times) -> None:
        self._database = database
        self._times = times

    def of(self, run_id: str) -> list[CheckpointInfo]:
        """The checkpoints of a run, the furthest first."""
        with self._database.session(read_only=True) as session:
            return read_checkpoints(session, run_id)

    def add(self, claim: Claim, run_id: str, new: NewCheckpoint) -> list[str]:
        """Add the row of a stored checkpoint; returns the keys of those it replaces.

        Raises LeaseLost.
        """
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            _count_from_zero_if_further(session, claim, run_id, new.step)
            session.execute(
                insert(CheckpointRow).values(
                    id=new_ulid(),
                    run_id=run_id,
                    attempt_number=claim.number,
                    step=new.step,
                    epoch=new.epoch,
                    kind=new.kind,
                    uri=new.uri,
                    sha256=new.sha256,
                    bytes=new.size_bytes,
                    metrics=new.metrics,
                    created_at=now_milliseconds(),
                )
            )
            return _forget(session, _superfluous(read_checkpoints(session, run_id)))

    def drop(self, claim: Claim, checkpoint: CheckpointInfo, reason: str) -> None:
        """Delete the row of a checkpoint that cannot be used, with an event; raises LeaseLost."""
        with self._database.session() as session:
            renew_lease(session, claim, self._times)
            _forget(session, [checkpoint])
            add_event(
                session,
                claim.job_id,
                claim.number,
                "checkpoint_dropped",
                f"The checkpoint of step {checkpoint.step:,} cannot be used: {reason}",
                level="warning",
            )


def _count_from_zero_if_further(session: Session, claim: Claim, run_id: str, step: int) -> None:
    """A checkpoint beyond every earlier one is progress: count attempts from zero again."""
    furthest = session.scalar(
        select(func.max(CheckpointRow.step)).where(CheckpointRow.run_id == run_id)
    )
    if furthest is None or step > furthest:
        session.execute(update(JobRow).where(JobRow.id == claim.job_id).values(attempts_used=0))


def _forget(session: Session, checkpoints: list[CheckpointInfo]) -> list[str]:
    ids = [each.id for each in checkpoints]
    session.execute(delete(CheckpointRow).where(CheckpointRow.id.in_(ids)))
    return [each.uri for each in checkpoints]


def _superfluous(checkpoints: list[CheckpointInfo]) -> list[CheckpointInfo]:
    """All but the newest of each kind; of the periodic ones, all but the newest two."""
    gone: list[CheckpointInfo] = []
    for kind, kept in _KEPT:
        gone += [each for each in checkpoints if each.kind == kind][kept:]
    return gone
