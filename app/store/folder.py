"""Files in a local folder, written so that a crash or a full disk leaves only whole files.

Takes keys that ``blobs`` has checked. A temporary file beside its target is written and
flushed to the disk, then linked to its name, then the folder is flushed: a reader that finds
the name finds the whole file. Linking, unlike renaming, fails when another writer was first.
A failed flush is never retried: the system may have dropped what it could not write.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from .seen import Stamp

_STALE_SECONDS: Final = 3600
_TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]{32}\.part")
# Removed during the walk, a dangling link, a link that leads to itself.
_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_NO_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Folder:
    """The files below ``path``; the folder is created by the first write."""

    def __init__(self, path: str) -> None:
        self._root = Path(path).absolute()

    def write(self, key: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a new file; raises FileExistsError and leaves an existing file unchanged."""
        target = self._inside(key)
        _make_folders(target.parent)
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
        try:
            with temporary.open("xb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            _give_name(temporary, target)
        finally:
            with suppress(OSError):  # ``sweep`` removes it later; the result is already known
                temporary.unlink(missing_ok=True)
        try:
            _flush_folder(target.parent)
        except OSError:
            # The file may be gone after a crash, so it must not be visible after this failure.
            with suppress(OSError):
                target.unlink()
            raise

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        # Without O_NONBLOCK, a named pipe in the folder would block us forever.
        descriptor = os.open(self._inside(key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file")
            yield file

    def local_path(self, key: str) -> Path:
        with self.open(key):  # raises unless it is a regular file within the store
            return self._inside(key)

    def sizes(
        self, folder: str, pass_over: Callable[[str, OSError], None] | None
    ) -> dict[str, int]:
        """Raises OSError for what cannot be read, unless ``pass_over`` is told of it."""

        def note(path: Path, error: OSError) -> None:
            if error.errno in _NOT_THERE:
                return
            if pass_over is None:
                raise error  # unreadable files still exist
            pass_over(path.relative_to(self._root).as_posix(), error)

        found = {}
        for path in self._walk(folder, note):
            if not path.name.startswith("."):
                try:
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
                except OSError as error:
                    note(path, error)
        return found

    def stamps(self, keys: Sequence[str]) -> dict[str, Stamp | OSError]:
        found: dict[str, Stamp | OSError] = {}
        for key in keys:
            try:
                found[key] = _stamp(self._inside(key).stat())
            except OSError as error:
                found[key] = _absent() if error.errno in (errno.ENOENT, errno.ENOTDIR) else error
        return found

    def remove(self, keys: Sequence[str]) -> dict[str, OSError | None]:
        done: dict[str, OSError | None] = {}
        touched: dict[Path, list[str]] = {}
        for key in keys:
            try:
                path = self._inside(key)
                path.unlink()
                done[key] = None
                touched.setdefault(path.parent, []).append(key)
            except (FileNotFoundError, NotADirectoryError):
                done[key] = _absent()
            except OSError as error:
                done[key] = error
        for folder, removed in touched.items():
            try:
                _flush_folder(folder)
            except OSError as error:  # the files may be back after a crash
                done.update(dict.fromkeys(removed, error))
        return done

    def sweep(self) -> int:
        swept = 0
        for path in self._walk("", lambda _path, _error: None):  # it is there the next time
            with suppress(OSError):  # gone, or on a read-only disk: harmless, it is not listed
                old = time.time() - path.lstat().st_mtime > _STALE_SECONDS
                if old and _TEMPORARY.fullmatch(path.name):
                    path.unlink()
                    swept += 1
        return swept

    def _walk(self, below: str, note: Callable[[Path, OSError], None]) -> Iterator[Path]:
        """The files below a folder; ``note`` is told which folder cannot be read."""
        top = self._inside(below)

        def failed(error: OSError) -> None:
            note(Path(error.filename or top), error)

        for folder, folders, files in os.walk(top, onerror=failed):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(folder) / name for name in files)

    def _inside(self, key: str) -> Path:
        """The path of a key. A key has no ``..``, but a link on its path may lead out."""
        path = self._root / key
        # Not Path.resolve, which raises a RuntimeError for a link that leads to itself.
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root)):
            raise OSError(errno.ELOOP, "a link leads out of the store")
        return path


def _stamp(found: os.stat_result) -> Stamp | OSError:
    if not stat.S_ISREG(found.st_mode):
        return _absent()
    # A change that keeps the size and sets the time of writing back still shows in the
    # time of the inode's change.
    mark = f"{found.st_dev}-{found.st_ino}-{found.st_mtime_ns}-{found.st_ctime_ns}"
    return Stamp(found.st_size, mark)


def _absent() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _give_name(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links (exFAT, some network folders). Two writers of one key
        # could both pass the check in ``write``, but keys are reserved in the database.
        temporary.rename(target)


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it; flush the parent of each new one."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
