"""Whole files under a URL: a local folder, or an object store through fsspec.

Takes keys (``names/3.safetensors``) and bytes. A file is written whole or not at all, is
read back as a check, and never replaces another. Knows neither the files' contents nor SQL.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from ..errors import CharloomError, Conflict, InvalidInput, NotFound, StorageFailed
from .folder import Folder
from .seen import Stamp

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}"
_KEY: Final = re.compile(rf"{_PART}(/{_PART}){{0,7}}")
_PIECE: Final = 1 << 20


class Blob(NamedTuple):
    """One stored file: key, size in bytes, SHA-256 in hexadecimal."""

    key: str
    size_bytes: int
    sha256: str


class Removal(NamedTuple):
    """What became of files that were to be removed.

    A file that is ``absent`` may have been removed before, or its folder is not mounted.
    """

    removed: list[str]
    absent: list[str]
    failed: dict[str, CharloomError]


PassOver = Callable[[str, OSError], None]
"""Called with the path, in the store, of what cannot be read, and why."""


class _Backend(Protocol):
    """Where the files are. Raises OSError; FileExistsError when another ``write`` was first.

    ``stamps`` and ``remove`` take many keys and give the error of each instead of raising;
    ``remove`` gives None for a file that it has removed.
    """

    def write(self, key: str, pieces: Iterable[bytes | memoryview]) -> None: ...
    def open(self, key: str) -> AbstractContextManager[BinaryIO]: ...
    def local_path(self, key: str) -> Path | None: ...
    def sizes(self, folder: str, pass_over: PassOver | None) -> dict[str, int]: ...
    def stamps(self, keys: Sequence[str]) -> dict[str, Stamp | OSError]: ...
    def remove(self, keys: Sequence[str]) -> dict[str, OSError | None]: ...
    def sweep(self) -> int: ...


def _backend(url: str) -> _Backend:
    if "://" not in url or url.startswith("file://"):
        return Folder(url.removeprefix("file://"))
    # Clients of object stores are slow to import, and most installations do not use one.
    from .objects import Objects

    return Objects(url)


class BlobStore:
    """Files under ``url``: a folder, ``file:///folder``, ``s3://bucket/prefix``, …

    Every method raises StorageFailed when the disk or the object store refuses
    (full, read-only, gone) and InvalidInput for an invalid key.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._backend = _backend(url)

    def put(self, key: str, content: bytes | Iterable[bytes | memoryview]) -> Blob:
        """Write a new file; when this returns, it is on the disk, whole and verified.

        Raises Conflict if a file with that key exists; that file is left unchanged.
        """
        measured = _Measured([content] if isinstance(content, bytes) else content)
        with explained(key):
            try:
                self._backend.write(_checked(key), measured)
            except FileNotFoundError as error:
                raise StorageFailed(
                    f"{key} cannot be stored: there is no such store; create its folder or bucket."
                ) from error
        self._verify(key, measured.digest.digest())
        return Blob(key, measured.size_bytes, measured.digest.hexdigest())

    def _verify(self, key: str, expected: bytes) -> None:
        """Read a new file back; if that fails, remove it and raise StorageFailed."""
        try:
            if not self._reads_back(key, expected):
                raise StorageFailed(
                    f"{key} did not read back as it was written, and was removed; "
                    "the disk may be failing."
                )
        except BaseException:
            with suppress(CharloomError):
                self.delete(key)
            raise

    def _reads_back(self, key: str, expected: bytes) -> bool:
        digest = hashlib.sha256()
        try:
            for piece in self.pieces(key):
                digest.update(piece)
        except NotFound:  # another process has just removed it
            return False
        return digest.digest() == expected

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """A seekable stream of the file; raises NotFound."""
        with explained(key), self._backend.open(_checked(key)) as stream:
            yield stream

    def pieces(self, key: str) -> Iterator[bytes]:
        """The file's bytes, in pieces; raises NotFound."""
        with self.open(key) as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def local_path(self, key: str) -> Path | None:
        """The file's path on this machine, for reading only; None in an object store.

        Raises NotFound.
        """
        with explained(key):
            return self._backend.local_path(_checked(key))

    def sizes(self, folder: str = "", skipped: dict[str, str] | None = None) -> dict[str, int]:
        """The size in bytes of every file, or of those in one folder, by key and sorted.

        A file that was copied in by hand may have a name that cannot be a key; it is
        listed so that it can be reported, but cannot be opened. A file or folder that
        cannot be read raises, as its files exist; with ``skipped`` it is passed over, and
        the reason is put there under its path (``.`` for the store's own folder).
        """

        def pass_over(path: str, error: OSError) -> None:
            assert skipped is not None
            skipped[path] = f"it cannot be read: {_reason(error)}"

        with explained("The store"):
            told = None if skipped is None else pass_over
            return dict(sorted(self._backend.sizes(folder and _checked(folder), told).items()))

    def stamps(self, keys: Iterable[str]) -> dict[str, Stamp | CharloomError]:
        """The present size and mark of each file, or the error that using it would raise.

        Cheap for many files. Of several, an object store may give what it saw in the last five
        seconds.
        """
        seen = self._backend.stamps([_checked(key) for key in keys])
        return {
            key: _explained(key, found) if isinstance(found, OSError) else found
            for key, found in seen.items()
        }

    def delete(self, key: str) -> None:
        """Remove a file; a missing file is no error."""
        for error in self.remove([key]).failed.values():
            raise error

    def remove(self, keys: Iterable[str]) -> Removal:
        """Remove files, flushing each folder once; raises for none of them."""
        done = Removal([], [], {})
        for key, error in self._backend.remove([_checked(key) for key in keys]).items():
            if error is None:
                done.removed.append(key)
            elif isinstance(error, FileNotFoundError):
                done.absent.append(key)
            else:
                done.failed[key] = _explained(key, error)
        return done

    def sweep(self) -> int:
        """Remove temporary files older than an hour; returns how many."""
        with explained("The store"):
            return self._backend.sweep()


class _Measured:
    """Pieces whose size and digest are taken while they are read, once."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = pieces
        self.size_bytes = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for piece in self._pieces:
            self.digest.update(piece)
            self.size_bytes += len(piece)
            yield piece


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"{key[:80]!r} cannot be a stored file's name.", code="invalid_name")
    return key


_DENIED: Final = "permission denied; give Charloom's user access, or use another folder"
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
    """Translate the system's errors into ours, without paths and addresses."""
    try:
        yield
    except CharloomError:
        raise
    except OSError as error:
        raise _explained(what, error) from error


def _explained(what: str, error: OSError) -> CharloomError:
    if isinstance(error, FileExistsError):
        return Conflict(f"{what} is already in the store.", code="file_exists")
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return NotFound(f"{what} is not in the store.", code="file_not_found")
    return StorageFailed(f"{what} cannot be stored or read: {_reason(error)}.")


def _reason(error: OSError) -> str:
    number = error.errno or (errno.EACCES if isinstance(error, PermissionError) else 0)
    return _REASONS.get(number, _SILENT)
