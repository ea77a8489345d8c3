"""What this process sees of the files of model versions: there, absent, or damaged.

Takes versions; gives them back with a status, or opens their files. What is seen is kept in
memory and never written to the database: another server may see the file, and it may come
back. A file is looked at anew for each list and each use, so a version is back by itself.

Damage is noticed by the file's size at a look, and by its digest when it is read; the latter
is remembered together with the file's mark, and forgotten when the file changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final

from ..errors import CharloomError, InvalidArtifact, NotFound, Overloaded, StorageFailed
from ..store.blobs import BlobStore
from ..store.seen import Stamp
from .model_rows import ModelVersion, Status

_PIECE: Final = 1 << 20
_RETRY_SECONDS: Final = 5.0


class ModelFiles:
    """The files of versions as this process sees them; safe to share between threads."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._damaged: dict[str, Stamp] = {}  # by key, guarded by the lock

    def looked_at(self, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
        """The versions with their ``status`` and ``status_reason``. Reads no file."""
        stamps = self._blobs.stamps([each.key for each in versions]) if versions else {}
        return [_with_status(each, self._fault(each, stamps[each.key])) for each in versions]

    def require(self, version: ModelVersion) -> None:
        """Raise what using this version would raise, as far as a look shows it."""
        stamp = self._blobs.stamps([version.key])[version.key]
        if (fault := self._fault(version, stamp)) is not None:
            raise fault

    @contextmanager
    def reading(self, version: ModelVersion) -> Iterator[BinaryIO]:
        """The file of a version, seekable; the block raises InvalidArtifact if it is damaged.

        Raises Overloaded (model_file_missing), StorageFailed (damaged_model or another).
        """
        stamp = self._blobs.stamps([version.key])[version.key]
        if (fault := self._fault(version, stamp)) is not None:
            raise fault
        assert isinstance(stamp, Stamp)
        try:
            with self._blobs.open(version.key) as stream:
                yield stream
        except NotFound as error:  # gone since the look
            raise _missing(version) from error
        except InvalidArtifact as error:
            with self._lock:
                self._damaged[version.key] = stamp
            raise _damaged(version) from error
        with self._lock:
            self._damaged.pop(version.key, None)

    def verify(self, version: ModelVersion) -> None:
        """Read the whole file; raises what ``reading`` raises unless it is what was published."""
        with self.reading(version) as stream:
            _check_digest(version, stream)

    def fetch(self, version: ModelVersion) -> Iterator[bytes]:
        """The file in pieces, from one open file that was verified before.

        Raises what ``verify`` raises, before it returns. If the file is changed after that, the
        iterator raises StorageFailed instead of yielding the last piece.
        """
        pieces = self._fetched(version)
        next(pieces)
        return pieces

    def _fetched(self, version: ModelVersion) -> Iterator[bytes]:
        """An empty piece once the file is verified, then the file."""
        with self.reading(version) as stream:
            _check_digest(version, stream)
            yield b""
            stream.seek(0)
            yield from _unless_changed(version, stream)

    def _fault(self, version: ModelVersion, seen: Stamp | CharloomError) -> CharloomError | None:
        """What is wrong with a version whose file was seen like this."""
        if isinstance(seen, NotFound):
            return _missing(version)
        if isinstance(seen, CharloomError):
            return seen
        with self._lock:
            known = self._damaged.get(version.key)
        if seen.size_bytes != version.size_bytes or (seen.mark and seen == known):
            return _damaged(version)
        return None


def _check_digest(version: ModelVersion, stream: BinaryIO) -> None:
    """Read to the end; raises InvalidArtifact if these are not the bytes that were published."""
    for _ in _unless_changed(version, stream):
        pass


def _unless_changed(version: ModelVersion, stream: BinaryIO) -> Iterator[bytes]:
    """The stream in pieces; raises InvalidArtifact instead of the last if the digest differs."""
    digest, held = hashlib.sha256(), b""
    while piece := stream.read(_PIECE):
        digest.update(piece)
        if held:
            yield held
        held = piece
    if digest.hexdigest() != version.sha256:
        raise changed(version)
    yield held


def changed(version: ModelVersion) -> InvalidArtifact:
    """The error for a file that is not the one that was published."""
    return InvalidArtifact(
        f"The file of {version.id} is not the one that was published; restore that file, "
        "or delete this version and publish again."
    )


def _damaged(version: ModelVersion) -> StorageFailed:
    return StorageFailed(changed(version).message, code="damaged_model")


def _missing(version: ModelVersion) -> Overloaded:
    return Overloaded(
        f"The file of {version.id} is not in the model store. Mount or restore it; "
        "the version is then back by itself.",
        retry_after_seconds=_RETRY_SECONDS,
        code="model_file_missing",
    )


def _with_status(version: ModelVersion, fault: CharloomError | None) -> ModelVersion:
    if fault is None:
        return version
    status: Status = "damaged" if fault.code == "damaged_model" else "missing"
    return dataclasses.replace(version, status=status, status_reason=fault.message)
