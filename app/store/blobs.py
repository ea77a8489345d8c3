"""Whole files under a URL: a local folder, or an object store through fsspec.

Takes keys (``names/3.safetensors``) and bytes. A file is written whole or not
at all, is read back as a check, and never replaces another. Knows
nothing of what is inside the files, nor of SQL.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from ..errors import CharloomError, Conflict, InvalidInput, NotFound, StorageFailed
from .folder import Folder

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}"
_KEY: Final = re.compile(rf"{_PART}(/{_PART}){{0,7}}")
_PIECE: Final = 1 << 20


class Blob(NamedTuple):
    """One stored file: key, bytes, SHA-256 in hexadecimal."""

    key: str
    size_bytes: int
    sha256: str


class _Backend(Protocol):
    """Where the files are. Errors are OSError's; FileExistsError when ``write`` came second."""

    def write(self, key: str, pieces: Iterable[bytes | memoryview]) -> None: ...
    def open(self, key: str) -> AbstractContextManager[BinaryIO]: ...
    def local_path(self, key: str) -> Path | None: ...
    def sizes(self, folder: str) -> dict[str, int]: ...
    def delete(self, key: str) -> None: ...
    def sweep(self) -> int: ...


def _backend(url: str) -> _Backend:
    if "://" not in url or url.startswith("file://"):
        return Folder(url.removeprefix("file://"))
    # The clients of object stores are heavy, and most installations have none.
    from .objects import Objects

    return Objects(url)


class BlobStore:
    """Files under ``url``: a folder, ``file:///folder``, ``s3://bucket/prefix``, …

    Every method raises StorageFailed when the disk or the object store refuses
    (full, read-only, gone) and InvalidInput for a key that is not one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._backend = _backend(url)

    def put(self, key: str, content: bytes | Iterable[bytes | memoryview]) -> Blob:
        """Write a new file; when this returns, it is on the disk, whole and verified.

        Raises Conflict when there is a file of that key: it stays as it is.
        """
        digest, size = hashlib.sha256(), 0

        def measured() -> Iterator[bytes | memoryview]:
            nonlocal size
            for piece in [content] if isinstance(content, bytes) else content:
                digest.update(piece)
                size += len(piece)
                yield piece

        with explained(key):
            try:
                self._backend.write(_checked(key), measured())
            except FileNotFoundError as error:
                raise StorageFailed(
                    f"{key} cannot be stored: the store is not there; make its folder or bucket."
                ) from error
        try:
            if not self._reads_back(key, digest.digest()):
                raise StorageFailed(
                    f"{key} did not read back as it was written, and was removed; "
                    "the disk may be bad."
                )
        except BaseException:
            with suppress(CharloomError):
                self.delete(key)
            raise
        return Blob(key, size, digest.hexdigest())

    def _reads_back(self, key: str, expected: bytes) -> bool:
        digest = hashlib.sha256()
        try:
            for piece in self.pieces(key):
                digest.update(piece)
        except NotFound:  # removed a moment ago
            return False
        return digest.digest() == expected

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """A seekable stream of the file; raises NotFound."""
        with explained(key), self._backend.open(_checked(key)) as stream:
            yield stream

    def pieces(self, key: str) -> Iterator[bytes]:
        """The file's bytes, a piece at a time; raises NotFound."""
        with self.open(key) as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def local_path(self, key: str) -> Path | None:
        """Where the file lies on this machine's disks; None in an object store.

        For reading only. Raises NotFound.
        """
        with explained(key):
            return self._backend.local_path(_checked(key))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The key and the bytes of every file, or of those in one folder; in order of the keys.

        Someone may have copied in a file whose name cannot be a key; it is
        listed so that it can be reported, and cannot be opened.
        """
        with explained("The store"):
            return dict(sorted(self._backend.sizes(folder and _checked(folder)).items()))

    def delete(self, key: str) -> None:
        """Remove a file; a missing file is no error."""
        with explained(key):
            self._backend.delete(_checked(key))

    def sweep(self) -> int:
        """Remove temporary files older than an hour; returns how many."""
        with explained("The store"):
            return self._backend.sweep()


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"{key[:80]!r} is not a name of a stored file.", code="invalid_name")
    return key


_DENIED: Final = "permission denied; give Charloom's user the right, or use another folder"
_SILENT: Final = "the disk or the object store does not answer; see the system's log and try again"
_REASONS: Final = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "the disk quota is used up; free some space and try again",
    errno.EFBIG: "the file is larger than this program may write; raise that limit (ulimit -f)",
    errno.EROFS: "the disk is read-only; mount it for writing or use another folder",
    errno.ELOOP: "a link leads out of the store or to itself; put the file there",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Translate the system's error; without paths and addresses."""
    try:
        yield
    except CharloomError:
        raise
    except FileExistsError as error:
        raise Conflict(f"{what} is in the store already.", code="file_exists") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"{what} is not in the store.", code="file_not_found") from error
    except OSError as error:
        number = error.errno or (errno.EACCES if isinstance(error, PermissionError) else 0)
        reason = _REASONS.get(number, _SILENT)
        raise StorageFailed(f"{what} cannot be stored or read: {reason}.") from error
