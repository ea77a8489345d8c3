"""Files that must go: decided in the database, removed afterwards, whatever happens in between.

``decide`` is part of the transaction that deletes the rows, so after it the files can only go;
``finish`` removes them, and what fails (a read-only disk, a killed server) is done by
``sweep``, at every start and every few minutes, by whichever server gets there.

An entry leaves the table with its file. If the file is not there, its folder may be one that
is mounted later; the entry then stays for a week, so that the file cannot bring back what
was deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ..database.deletion_tables import PendingDeletionRow
from ..database.session import Database
from ..database.tables import now_milliseconds
from ..database.upserts import insert_or_leave_all
from ..errors import CharloomError
from ..store.blobs import BlobStore

_ABSENT_MS: Final = 7 * 86_400_000
_AT_ONCE: Final = 500  # keys in one statement
_log = logging.getLogger(__name__)


class Deletions:
    """The pending deletions of one store, which ``store`` names in the table."""

    def __init__(self, database: Database, blobs: BlobStore, store: str) -> None:
        self._database = database
        self._blobs = blobs
        self._store = store

    def decide(self, session: Session, keys: Iterable[str]) -> None:
        """Note in the caller's transaction that these files must go."""
        now = session.scalar(select(now_milliseconds()))
        rows = [{"store": self._store, "key": key, "created_at": now} for key in keys]
        insert_or_leave_all(session, PendingDeletionRow, rows)

    def is_pending(self, session: Session, key: str) -> bool:
        """Whether this file must go; for a transaction that would give it a row."""
        return session.get(PendingDeletionRow, (self._store, key)) is not None

    def pending(self) -> set[str]:
        """The keys of all files that must go."""
        query = select(PendingDeletionRow.key).where(PendingDeletionRow.store == self._store)
        with self._database.session(read_only=True) as session:
            return set(session.scalars(query))

    def finish(self, keys: Iterable[str]) -> None:
        """Remove decided files now as far as possible; the rest is left to ``sweep``.

        Never raises for the store or the database: what was decided stays decided.
        """
        done = self._blobs.remove(keys)
        try:
            self._drop(done.removed)
        except CharloomError as error:  # the next sweep finds the files absent
            _log.warning("deleted files are still listed as pending: %s", error.message)
        if done.failed:
            _log.warning(
                "%s: files that were deleted and could not be removed yet: %d; the first: %s",
                self._store, len(done.failed), next(iter(done.failed.values())).message,
            )  # fmt: skip

    def sweep(self) -> None:
        """Remove what earlier calls could not. Raises Overloaded, StorageFailed."""
        if pending := self.pending():
            self.finish(sorted(pending))
            self._drop_old()

    def _drop(self, keys: list[str]) -> None:
        rest = iter(keys)
        while some := list(islice(rest, _AT_ONCE)):
            with self._database.session() as session:
                session.execute(
                    delete(PendingDeletionRow).where(
                        PendingDeletionRow.store == self._store, PendingDeletionRow.key.in_(some)
                    )
                )

    def _drop_old(self) -> None:
        """Drop entries whose file has been absent for long."""
        old = (
            select(PendingDeletionRow.key)
            .where(PendingDeletionRow.store == self._store)
            .where(PendingDeletionRow.created_at < now_milliseconds() - _ABSENT_MS)
        )
        with self._database.session(read_only=True) as session:
            keys = list(session.scalars(old))
        if keys:
            # Again: a file that could not be removed is not absent.
            self._drop(self._blobs.remove(keys).absent)
