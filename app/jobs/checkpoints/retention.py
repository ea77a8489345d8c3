"""Decide which checkpoints to keep: best and final ones always, periodic ones for some days.

Takes a database and the store of checkpoints. Rows are deleted before files, so a row never
points at a file that was removed; files of a run without a row are removed in the next round.
Files of runs that the database does not know are left alone: they may be those of another
database, or its own that is mounted later.
"""

from __future__ import annotations

import logging

from sqlalchemy import delete, select

from ...catalog.deletions import Deletions
from ...database.job_states import FINAL, LEASED
from ...database.job_tables import CheckpointRow, JobRow, RunRow
from ...database.session import Database
from ...database.tables import now_milliseconds
from ...store.blobs import BlobStore

_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


def checkpoint_deletions(database: Database, checkpoints: BlobStore) -> Deletions:
    """The checkpoints of deleted jobs whose files must go."""
    return Deletions(database, checkpoints, "checkpoints")


class Retention:
    """Delete periodic checkpoints of finished jobs after ``days``."""

    def __init__(self, database: Database, checkpoints: BlobStore, *, days: float) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._days = days

    def apply(self) -> int:
        """Remove expired checkpoints and files without a row; returns the number of the latter."""
        checkpoint_deletions(self._database, self._checkpoints).sweep()
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
        """Files of known runs without a row, except where a process may be writing now."""
        files = self._checkpoints.sizes()
        with self._database.session(read_only=True) as session:
            known = set(session.scalars(select(CheckpointRow.uri)))
            runs = set(session.scalars(select(RunRow.id)))
            busy = set(
                session.scalars(
                    select(RunRow.id)
                    .join(JobRow, JobRow.id == RunRow.job_id)
                    .where(JobRow.state.in_(LEASED))
                )
            )
        idle = runs - busy
        return [key for key in files if key not in known and key.split("/")[0] in idle]
