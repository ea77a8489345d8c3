"""Decide which checkpoints to keep: best and final ones always, periodic ones for some days.

Takes a database and the store of checkpoints. Rows are deleted before files, so a row never
points at a file that was removed; files without a row are removed in the next round. A
database that knows no run removes nothing: its own file may be on a disk that is mounted later.
"""

from __future__ import annotations

import logging

from sqlalchemy import delete, select

from ...database.job_states import FINAL, LEASED
from ...database.job_tables import CheckpointRow, JobRow, RunRow
from ...database.session import Database
from ...database.tables import now_milliseconds
from ...store.blobs import BlobStore

_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


class Retention:
    """Delete periodic checkpoints of finished jobs after ``days``."""

    def __init__(self, database: Database, checkpoints: BlobStore, *, days: float) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._days = days

    def apply(self) -> int:
        """Remove expired checkpoints and files without a row; returns the number of the latter."""
        self._checkpoints.remove(self._expired())  # or as orphans
        self._checkpoints.sweep()
        orphans = self._orphans()
        failed = self._checkpoints.remove(orphans).failed
        if failed:
            _log.warning(
                "%d old checkpoints could not be removed yet and will be: %s",
                len(failed), next(iter(failed.values())).message,
            )  # fmt: skip
        return len(orphans) - len(failed)

    def _expired(self) -> list[str]:
        old = now_milliseconds() - int(self._days * _DAY_MS)
        finished = (
            select(RunRow.id)
            .join(JobRow, JobRow.id == RunRow.job_id)
            .where(JobRow.state.in_(FINAL), JobRow.finished_at <= old)
        )
        gone = (
            delete(CheckpointRow)
            .where(CheckpointRow.kind == "periodic", CheckpointRow.run_id.in_(finished))
            .returning(CheckpointRow.uri)
            .execution_options(synchronize_session=False)
        )
        with self._database.session() as session:
            return list(session.scalars(gone))

    def _orphans(self) -> list[str]:
        """Files without a row, except those of runs that a process may be writing now."""
        files = self._checkpoints.sizes()
        with self._database.session(read_only=True) as session:
            if session.scalar(select(RunRow.id).limit(1)) is None:
                return []
            known = set(session.scalars(select(CheckpointRow.uri)))
            busy = set(
                session.scalars(
                    select(RunRow.id)
                    .join(JobRow, JobRow.id == RunRow.job_id)
                    .where(JobRow.state.in_(LEASED))
                )
            )
        return [key for key in files if key not in known and key.split("/")[0] not in busy]
