"""Disks and limits that really run out, and calls that fail one at a time."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

MEBIBYTE = 1 << 20
FULL_DISK_SIZE = 8 * MEBIBYTE


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder that takes 8 MB: a disk of its own where we may mount one.

    Elsewhere no single file of this process, or of those it starts, may be longer.
    """
    folder.mkdir()
    if mounted(folder, f"size={FULL_DISK_SIZE}"):
        try:
            yield folder
        finally:
            unmount(folder)
        return
    with _limited(FULL_DISK_SIZE):
        yield folder


@contextmanager
def _limited(longest: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full_disk(folder: Path, room: int) -> Iterator[Path]:
    """A folder whose disk has room for so many bytes more.

    Where we may not mount one, no file of this process may be longer than that.
    """
    folder.mkdir()
    if mounted(folder, f"size={FULL_DISK_SIZE}"):
        try:
            fill(folder, but=room)
            yield folder
        finally:
            unmount(folder)
        return
    with _limited(room):
        yield folder


@contextmanager
def read_only_disk(folder: Path) -> Iterator[Path]:
    """What lies in ``folder``, on a disk that takes nothing.

    Where we may not mount one, a folder of the system's that takes nothing from anyone; it is
    another one then, and without those files.
    """
    program = ["mount", "--bind", "-o", "ro", str(folder), str(folder)]
    if os.geteuid() == 0 and subprocess.run(program, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            unmount(folder)
        return
    yield Path("/sys/kernel")


@contextmanager
def unreadable_folder(folder: Path) -> Iterator[None]:
    """A folder that cannot be listed, even by root, whom permissions do not bind."""
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        yield


def mounted(folder: Path, options: str) -> bool:
    """Mount an empty disk in memory on ``folder``; False where that is not allowed."""
    program = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return os.geteuid() == 0 and subprocess.run(program, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, but: int = 0) -> None:
    """Take the room that a small disk has, all but so many bytes."""
    with (folder / ".filling").open("wb", buffering=0) as file:
        size = 0
        try:
            while True:
                size += file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, size - but))


class Failure:
    """Which call was made to fail; ``call`` is None if there were not as many."""

    call: str | None = None


@contextmanager
def failing_call(nth: int, number: int) -> Iterator[Failure]:
    """The nth call into the operating system or of an open file raises OSError(number).

    The call is not made. Counted in this thread, from 1; looking at paths counts too.
    """
    failure, count = Failure(), 0

    def watch(frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        if event != "c_call" or failure.call or not _is_of_the_system(called):
            return
        count += 1
        if count == nth:
            failure.call = called.__name__
            if failure.call == "__exit__":  # as the system does it: closed all the same
                called.__self__.close()
            raise OSError(number, os.strerror(number))

    sys.setprofile(watch)
    try:
        yield failure
    finally:
        sys.setprofile(None)


_PURE = {
    "fspath", "getpid", "urandom", "fsdecode", "fsencode", "getcwd", "S_ISREG",
    "_path_normpath", "_path_splitroot_ex",
}  # fmt: skip


def _is_of_the_system(called: Any) -> bool:
    if called is io.open or called is os.open:
        return True
    owner = getattr(called, "__self__", None)
    of_a_file = isinstance(owner, io.BufferedIOBase | io.RawIOBase)
    return (of_a_file or getattr(called, "__module__", "") == "posix") and (
        called.__name__ not in _PURE
    )
