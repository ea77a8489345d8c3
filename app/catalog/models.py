"""Publish artifacts as versions, and open them again.

Takes artifacts and names; gives versions and artifacts, on top of the index. Knows nothing of
HTTP or of loading into memory.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from ..errors import CharloomError, Conflict
from ..store.artifact import Artifact, chunks, read
from ..store.layout import checked_name, model_key, parse_key
from ..store.model_file import check
from . import model_rows
from .index import ModelIndex
from .model_files import changed
from .model_rows import ModelVersion
from .synchronising import Staged, described

_TRIES: Final = 100  # numbers to try while files are being copied in by hand


class Registry(ModelIndex):
    """The index, with publishing and opening of artifacts; safe to share between threads."""

    def publish(self, name: str, artifact: Artifact, run_id: str | None = None) -> ModelVersion:
        """Store an artifact as the next version of ``name``: whole or not at all.

        A ``run_id`` that has published before gets the version from then. Raises InvalidInput
        for an invalid name, StorageFailed (store_empty if the store has none of the known files).
        """
        checked_name(name)
        if run_id is not None and (before := self.published_by(run_id)):
            return before
        staged = self.stage(name, artifact, run_id)
        with self._database.session() as session:
            published = self.register(session, staged)
        if published.key != staged.key:
            self.deletions.finish([staged.key])
        return published

    def stage(self, name: str, artifact: Artifact, run_id: str | None = None) -> Staged:
        """The first half of publishing: reserve a number and write the file under it.

        Pass the staged file to ``register`` or ``unstage``; after a crash in between,
        ``synchronise`` finds the whole file and registers it.
        """
        checked_name(name)
        self.check_store()
        card = artifact.card.model_copy(update={"run_id": run_id})
        for _ in range(_TRIES):
            at_least = 1 + max(self._versions_in_store(name), default=0)
            with self._database.session() as session:
                version = model_rows.reserve_version(session, name, at_least)
            try:
                blob = self._blobs.put(
                    model_key(name, version), chunks(Artifact(card, artifact.weights))
                )
            except Conflict:  # a file with that number was copied in by hand after the check
                continue
            facts = {"size_bytes": blob.size_bytes, "sha256": blob.sha256}
            return Staged(name, version, card.model_copy(update=facts))
        raise Conflict(f"No version number of {name} was free; try again.")

    def register(self, session: Session, staged: Staged) -> ModelVersion:
        """The second half of publishing: insert the row, in the caller's transaction.

        If the run has published before, returns that version instead, and the staged file must
        go; the caller may then unstage it, or leave that to a sweep. Raises Conflict if the file
        was taken for a version meanwhile, and that version deleted.
        """
        model_rows.lock_name(session, staged.name)
        if self.synchronising.must_go(session, staged.key):
            raise Conflict(
                f"{staged.name}@{staged.version} has just been deleted.", code="version_deleted"
            )
        registered = model_rows.insert_version(session, described(staged, staged.card.run_id))
        if registered.key != staged.key:
            self.deletions.decide(session, [staged.key])
        return registered

    def published_by(self, run_id: str) -> ModelVersion | None:
        """The version that a run has published, if any."""
        with self._database.session(read_only=True) as session:
            return model_rows.find_run(session, run_id)

    def left_by(self, run_id: str, name: str) -> Staged | None:
        """The whole file of ``name`` that a run left without a row when it crashed, if any."""
        with self._database.session(read_only=True) as session:
            known = {each.key for each in model_rows.versions_of(session, name)}
        known |= self.deletions.pending()
        for key in self._blobs.sizes(name):
            place = parse_key(key)
            if key in known or place is None:
                continue
            try:
                with self._blobs.open(key) as stream:
                    card = check(stream).card
            except CharloomError:  # another run's damaged file
                continue
            if card.run_id == run_id:
                return Staged(*place, card)
        return None

    def unstage(self, staged: Staged) -> None:
        """Remove a staged file that will not become a version, now or later."""
        with self._database.session() as session:
            self.deletions.decide(session, [staged.key])
        self.deletions.finish([staged.key])

    def open(self, version: ModelVersion) -> Artifact:
        """The artifact of a version, verified.

        Raises Overloaded (model_file_missing), StorageFailed (damaged_model if the file is not
        the one that was published).
        """
        with self._files.reading(version) as stream:
            artifact = read(stream)
            if artifact.card.sha256 != version.sha256:
                raise changed(version)
        return artifact
