"""Pieces from the engine's thread to a waiting reader: they merge and never queue.

A stream holds at most one piece per sequence; a later piece is joined to one that was not
read yet. A slow reader gets bigger pieces and does not delay others. When ``MOST_UNREAD``
numbers wait for it, the stream is ``full`` and the engine pauses its request. A reader that
collects everything is never full: who asks for a whole answer reserves its memory first.

``AsyncStream`` is for an event loop, which is woken by one call per tick for all its
streams; ``BlockingStream`` is for threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

from .piece import PIECE_NUMBERS, Piece

MOST_UNREAD: Final = 8_000
"""Numbers (see ``Piece.numbers``) that wait for one reader: 96 KB, and half a megabyte of JSON."""

_READER_SECONDS: Final = 0.0005
"""Added to every stream's gap per stream: two thousand pieces per second keep a core busy."""


class Abandoned(Exception):
    """The request was cancelled; no more pieces will come."""


class _Pending:
    """Joined pieces by sequence; one thread fills it, another empties it.

    The lock guards every attribute but ``collecting``, which only the reader sets. ``complete``
    and ``full`` are read without it: each is one comparison of values that are replaced whole.
    """

    def __init__(self, sequences: int) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[int, Piece] = {}
        self._numbers = 0
        self._left = sequences
        self._error: Exception | None = None
        self.collecting = False
        """Whether the reader takes everything and so is never full."""

    def add(self, piece: Piece) -> None:
        with self._lock:
            known = self._pieces.get(piece.index)
            self._numbers += piece.numbers
            if known is None:
                self._pieces[piece.index] = piece
                self._numbers += PIECE_NUMBERS
            else:
                known.join(piece)
            self._left -= piece.finish is not None

    @property
    def full(self) -> bool:
        """Whether so much is unread that no more should be made."""
        return self._numbers >= MOST_UNREAD and not self.collecting

    def fail(self, error: Exception) -> None:
        with self._lock:
            self._error = error

    @property
    def complete(self) -> bool:
        """Whether nothing more will arrive."""
        return self._left == 0 or self._error is not None

    def take(self) -> tuple[list[Piece], bool]:
        """The pieces so far, and whether these are the last. Raises the stream's error."""
        with self._lock:
            pieces, self._pieces = list(self._pieces.values()), {}
            self._numbers = 0
            if not pieces and self._error is not None:
                raise self._error
            return pieces, self._left == 0 and self._error is None


class Bridge:
    """Wake the streams of one event loop, with at most one call per tick and one outstanding.

    Create it in the loop's own thread. The lock guards ``_woken`` and ``_called``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._woken: set[asyncio.Event] = set()
        self._called = False
        self.readers = 0
        """How many streams are being read; only the loop's own thread changes it."""

    def note(self, event: asyncio.Event) -> None:
        """Mark ``event`` to be set; ``flush`` wakes the loop. Called from the engine's thread."""
        with self._lock:
            self._woken.add(event)

    def flush(self) -> None:
        """Wake the loop if needed. Called once per tick by the thread of the tick."""
        if threading.get_ident() == self._thread:
            self._wake()
            return
        with self._lock:
            if not self._woken or self._called:
                return
            self._called = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed, so there are no readers
            with self._lock:
                self._woken.clear()
                self._called = False

    def _wake(self) -> None:
        with self._lock:
            woken, self._woken = self._woken, set()
            self._called = False
        for event in woken:
            event.set()


class AsyncStream:
    """The pieces of one request, for one reader on an event loop."""

    def __init__(self, sequences: int, bridge: Bridge) -> None:
        self._pending = _Pending(sequences)
        self._bridge = bridge
        self._event = asyncio.Event()
        self._rested = asyncio.Event()  # the gap is over, or nothing more will come
        self.cancel: Callable[[], None] = lambda: None
        """Cancel the request; its rows are free at the next tick."""
        self.resume: Callable[[], None] = lambda: None
        """Wake the engine: the stream is no longer full."""

    @property
    def full(self) -> bool:
        return self._pending.full

    def push(self, piece: Piece) -> None:
        self._pending.add(piece)
        self._note()

    def fail(self, error: Exception) -> None:
        self._pending.fail(error)
        self._note()

    def _note(self) -> None:
        self._bridge.note(self._event)
        if self._pending.complete:
            self._bridge.note(self._rested)

    async def pieces(self, gap_seconds: float = 0.0) -> AsyncGenerator[list[Piece], None]:
        """Lists of pieces, at most one per sequence, until every sequence has finished.

        At least ``gap_seconds`` pass between two lists, except before the last; more if many
        streams are being read, so that the loop does not only send. Leaving early cancels
        the request. Raises the engine's errors.
        """
        loop = asyncio.get_running_loop()
        done, not_before = False, 0.0
        self._bridge.readers += 1
        try:
            while not done:
                await self._event.wait()
                if gap_seconds and not self._pending.complete and loop.time() < not_before:
                    timer = loop.call_at(not_before, self._rested.set)
                    await self._rested.wait()
                    timer.cancel()
                    self._rested.clear()
                self._event.clear()
                was_full = self._pending.full
                pieces, done = self._pending.take()
                if was_full:
                    self.resume()
                if self._pending.complete:
                    self._event.set()  # an error after these pieces will not be reported again
                crowd = self._bridge.readers * _READER_SECONDS
                not_before = loop.time() + max(gap_seconds, crowd)
                if pieces:
                    yield pieces
        finally:
            self._bridge.readers -= 1
            if not done:
                self.cancel()

    def collected(self) -> list[Piece] | None:
        """As ``collect``, but without waiting: None, with no piece taken, unless complete."""
        if not self._pending.complete:
            return None
        pieces, done = self._pending.take()
        if not done:
            self._pending.take()  # raises: an error follows the pieces
        return sorted(pieces, key=lambda piece: piece.index)

    async def collect(self) -> list[Piece]:
        """All results, one piece per sequence, in the order of their indices."""
        self._pending.collecting = True
        self.resume()
        whole: dict[int, Piece] = {}
        async for pieces in self.pieces():
            _gather(whole, pieces)
        return [whole[index] for index in sorted(whole)]


class BlockingStream:
    """The pieces of one request, for a reader in a thread of its own."""

    def __init__(self, sequences: int) -> None:
        self._pending = _Pending(sequences)
        self._news = threading.Event()
        self.cancel: Callable[[], None] = lambda: None
        self.resume: Callable[[], None] = lambda: None

    @property
    def full(self) -> bool:
        return self._pending.full

    def push(self, piece: Piece) -> None:
        self._pending.add(piece)
        self._news.set()

    def fail(self, error: Exception) -> None:
        self._pending.fail(error)
        self._news.set()

    def pieces(self) -> Iterator[list[Piece]]:
        """As ``AsyncStream.pieces``."""
        done = False
        try:
            while not done:
                self._news.wait()
                self._news.clear()
                was_full = self._pending.full
                pieces, done = self._pending.take()
                if was_full:
                    self.resume()
                if self._pending.complete:
                    self._news.set()
                if pieces:
                    yield pieces
        finally:
            if not done:
                self.cancel()

    def collect(self) -> list[Piece]:
        """As ``AsyncStream.collect``."""
        self._pending.collecting = True
        self.resume()
        whole: dict[int, Piece] = {}
        for pieces in self.pieces():
            _gather(whole, pieces)
        return [whole[index] for index in sorted(whole)]


def _gather(whole: dict[int, Piece], pieces: list[Piece]) -> None:
    for piece in pieces:
        if piece.index in whole:
            whole[piece.index].join(piece)
        else:
            whole[piece.index] = piece
