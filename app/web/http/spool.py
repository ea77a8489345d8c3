"""Bytes between a writer and a slower reader: a little in memory, the rest on disk.

A client may send all of its request before it reads the first byte of the answer. The answer
then waits here, so that the request can be read on. Files have no names and are gone with the
process.

Used on one event loop, by one writer and one reader. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from ...errors import StorageFailed, TooLarge
from .room import Reservation, Room

T = TypeVar("T")

# Of their own: a database or a store that hangs must not keep answers waiting.
_DISK: Final = ThreadPoolExecutor(2, "spool")
_MEMORY_BYTES: Final = 64 << 10
_SEGMENT_BYTES: Final = 8 << 20
_MOST_SEGMENTS: Final = 64  # of one spool: 512 MiB
_READ_BYTES: Final = 64 << 10
_LOOK_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 30.0
"""How long a full spool waits for its reader."""


async def _on_disk(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_DISK, work)


@contextmanager
def _kept() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"The answer could not be kept until it is read: {error.strerror}."
        ) from error


class _Segment:
    """A file that is written from the front and read from the front, then dropped."""

    def __init__(self, folder: Path | None, reservation: Reservation) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._reservation = reservation
        self._lock = threading.Lock()  # no call uses the descriptor after ``close``
        self.written = self.read = 0

    @property
    def full(self) -> bool:
        return self.written >= _SEGMENT_BYTES

    def write(self, piece: bytes) -> None:
        with self._lock, _kept():
            done = 0
            while done < len(piece) and not self._file.closed:
                done += os.pwrite(self._file.fileno(), piece[done:], self.written + done)

    def read_next(self) -> bytes:
        size = min(_READ_BYTES, self.written - self.read)
        with self._lock, _kept():
            return b"" if self._file.closed else os.pread(self._file.fileno(), size, self.read)

    def close(self) -> None:
        """Called on the event loop, which must not wait for a disk that hangs."""
        self._reservation.release()
        asyncio.get_running_loop().run_in_executor(_DISK, self._close)

    def _close(self) -> None:
        with self._lock:
            self._file.close()


class Spool:
    """A queue of bytes; close it at the end.

    ``room`` bounds the bytes on disk of all spools together; ``folder`` gives the folder for
    the files.
    """

    def __init__(self, room: Room, folder: Callable[[], Path | None]) -> None:
        self._room = room
        self._folder = folder
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._segments: deque[_Segment] = deque()
        self._ended = False
        self._last = b""
        self._closed = False
        self._written, self._taken = asyncio.Event(), asyncio.Event()

    async def put(self, piece: bytes) -> None:
        """Append; waits while the room is full.

        Raises TooLarge if the reader takes nothing for ``WAIT_SECONDS`` then, StorageFailed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        while not await self._put(piece):
            self._taken.clear()
            with suppress(TimeoutError):  # another spool may have made room meanwhile
                async with asyncio.timeout(min(_LOOK_SECONDS, WAIT_SECONDS)):
                    await self._taken.wait()
                    until = loop.time() + WAIT_SECONDS
            if loop.time() > until:
                raise TooLarge(
                    "The answer was not read while it was made, and there is no room for more of "
                    "it: read the answer while sending, or send less at once.",
                    code="answer_not_read",
                )
        self._written.set()

    async def _put(self, piece: bytes) -> bool:
        """Append if there is room now."""
        fits = not self._memory or self._in_memory + len(piece) <= _MEMORY_BYTES
        if not self._segments and fits:
            self._memory.append(piece)
            self._in_memory += len(piece)
            return True
        segment = await self._segment()
        if segment is None:
            return False
        await _on_disk(partial(segment.write, piece))
        segment.written += len(piece)
        return True

    def end(self, last: bytes = b"") -> None:
        """Nothing more will be put; ``last``, a short piece, finds room in any case."""
        self._ended = True
        self._last = last
        self._written.set()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What was put, in order, until the end."""
        while True:
            if self._memory:
                piece = self._memory.popleft()
                self._in_memory -= len(piece)
                self._taken.set()
                yield piece
            elif self._segments and self._segments[0].read < self._segments[0].written:
                piece = await self._next_of_file()
                if self._closed:
                    return
                yield piece
            elif self._segments and self._segments[0].full:
                self._segments.popleft().close()
                self._taken.set()
            elif self._ended:
                if self._last:
                    yield self._last
                return
            else:
                await self._written.wait()
                self._written.clear()

    def close(self) -> None:
        """Drop everything that was not read, and end."""
        self._closed = True
        self.end()
        while self._segments:
            self._segments.popleft().close()
        self._memory.clear()

    async def _next_of_file(self) -> bytes:
        segment = self._segments[0]
        piece = await _on_disk(segment.read_next)
        if not piece and not self._closed:
            raise StorageFailed("The answer could not be read back from the disk.")
        piece = piece[: piece.rfind(b"\n") + 1] or piece  # whole lines, if they fit
        segment.read += len(piece)
        self._taken.set()
        return piece

    async def _segment(self) -> _Segment | None:
        """The segment to write to, a new one if the last is full; None if there is no room."""
        if self._segments and not self._segments[-1].full:
            return self._segments[-1]
        if len(self._segments) >= _MOST_SEGMENTS:
            return None
        reservation = self._room.reserve(_SEGMENT_BYTES)
        if reservation is None:
            return None
        try:
            folder = await _on_disk(self._folder)
            with _kept():
                segment = await _on_disk(partial(_Segment, folder, reservation))
        except BaseException:
            reservation.release()
            raise
        self._segments.append(segment)
        return segment
