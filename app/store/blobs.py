"""Whole files under a URL: a local folder, or an object store through fsspec.

``put`` writes a file whole or not at all and reads it back before it is
believed. Keys are relative paths with ``/``. Knows nothing of what is inside,
nor of SQL.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import fsspec

from app.errors import Conflict, InvalidInput, NotFound, StorageFailed

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_TEMPORARY: Final = ".part"
_STALE_SECONDS: Final = 3600


def checked_key(key: str) -> str:
    """``key`` if every part of it is a plain name; raises InvalidInput otherwise."""
    if not all(_PART.fullmatch(part) and ".." not in part for part in key.split("/")):
        raise InvalidInput(f"{key!r} is not a name that can be stored.", code="invalid_name")
    return key


class BlobStore:
    """Files under ``url``: a folder path, ``file://…``, ``s3://bucket/prefix``, ….

    Raises StorageFailed when the disk or the store refuses (full, read-only,
    gone), NotFound for a key that is not there, Conflict when ``put`` would
    replace a file.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._root: Path | None = None
        if "://" not in url or url.startswith("file://"):
            self._root = Path(url.removeprefix("file://")).absolute()
        else:
            with _failures(url):
                self._remote, prefix = fsspec.url_to_fs(url)
            self._prefix = prefix.rstrip("/")

    def put(self, key: str, content: bytes) -> None:
        """Store a new file; when this returns it is on the disk, whole and verified."""
        checked_key(key)
        with _failures(key):
            if self._root is not None:
                _put_local(self._root / key, content)
            else:
                if self._remote.exists(self._full(key)):
                    raise Conflict(f"{key} exists already.", code="already_exists")
                self._remote.pipe_file(self._full(key), content)
        if hashlib.sha256(self.get(key)).digest() != hashlib.sha256(content).digest():
            raise StorageFailed(f"{key} did not read back as it was written.")

    def get(self, key: str) -> bytes:
        """The content of a file."""
        checked_key(key)
        with _failures(key):
            if self._root is not None:
                return (self._root / key).read_bytes()
            content: bytes = self._remote.cat_file(self._full(key))
            return content

    def list(self) -> list[str]:
        """All keys, sorted; files with names that could not be keys are passed over."""
        with _failures(self.url):
            if self._root is not None:
                keys = [
                    path.relative_to(self._root).as_posix()
                    for path in self._root.rglob("*")
                    if path.is_file()
                ]
            else:
                self._remote.invalidate_cache()
                start = len(self._prefix) + 1
                keys = [path[start:] for path in self._remote.find(self._prefix)]
        return sorted(k for k in keys if all(_PART.fullmatch(p) for p in k.split("/")))

    def delete(self, key: str) -> None:
        """Remove a file; it is no error if it is gone already."""
        checked_key(key)
        with _failures(key):
            if self._root is not None:
                (self._root / key).unlink(missing_ok=True)
                _sync_folder((self._root / key).parent)
            elif self._remote.exists(self._full(key)):
                self._remote.rm_file(self._full(key))

    def sweep(self) -> int:
        """Remove what writers that died left behind an hour ago or longer; the number."""
        if self._root is None:
            return 0
        removed = 0
        for path in self._root.rglob(f"*{_TEMPORARY}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
                    removed += 1
        return removed

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}"


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Say in our own words what a file system said."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{what} is not in the store.", code="file_not_found") from error
    except OSError as error:
        reason = {
            errno.ENOSPC: "the disk is full: free some space and try again",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file is larger than the system allows",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission denied",
        }.get(error.errno or 0, error.strerror or type(error).__name__)
        raise StorageFailed(f"Storing or reading {what} failed: {reason}.") from error


def _put_local(target: Path, content: bytes) -> None:
    """Temporary file, fsync, hard link under the final name, fsync the folder.

    The link, unlike a rename, fails if another writer was first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}{_TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, target)
        except FileExistsError as error:
            raise Conflict(f"{target.name} exists already.", code="already_exists") from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor: Any = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
