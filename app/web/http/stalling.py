"""Give up connections whose client does not read, or hardly.

What a client has not read waits in the connection's buffer, and behind it in whatever makes
the answer. A client is alive if it has read or sent something in the last minute. In five
minutes it must read 64 KiB, or what waits for it would be kept for as long as it likes.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Final

try:
    import fcntl
    import termios

    _UNACKNOWLEDGED: int | None = termios.TIOCOUTQ  # on a socket, SIOCOUTQ of tcp(7)
except (ImportError, AttributeError):  # not on Windows
    _UNACKNOWLEDGED = None

STALL_SECONDS: Final = 60.0
_LOOKS: Final = 6  # within that time
SLOW_SECONDS: Final = 300.0
SLOW_BYTES: Final = 64 << 10


class StallGuard:
    """Watches one connection while its write buffer is full; aborts it when nothing moves."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._read = 0  # since ``_since``
        self._since = self._alive_at = 0.0

    def start(self) -> None:
        """The buffer is full: from now on the client must show that it is alive."""
        if self._timer is None:
            self._unread = self._waiting()
            self._read = 0
            self._since = self._alive_at = self._loop.time()
            self._look_later()

    def stop(self) -> None:
        """The buffer is nearly empty, or the connection is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def heard(self) -> None:
        """The client has sent something."""
        self._alive_at = self._loop.time()

    def _waiting(self) -> int:
        """Bytes that the client has not acknowledged, in our buffer and in the system's.

        The system takes more from us only when a good part of its own buffer is free, so ours
        alone may stand still while a slow client reads.
        """
        unsent = self._transport.get_write_buffer_size()
        wire = self._transport.get_extra_info("socket")
        if wire is None or _UNACKNOWLEDGED is None:
            return unsent
        with suppress(OSError, ValueError):
            told = fcntl.ioctl(wire.fileno(), _UNACKNOWLEDGED, bytes(4))
            return unsent + int.from_bytes(told, sys.byteorder)
        return unsent

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(STALL_SECONDS / _LOOKS, self._look)

    def _look(self) -> None:
        unread, self._unread, now = self._unread, self._waiting(), self._loop.time()
        if self._unread < unread:
            self._read += unread - self._unread
            self._alive_at = now
        if now - self._alive_at >= STALL_SECONDS or self._is_slow(now):
            self._timer = None
            self._transport.abort()
        else:
            self._look_later()

    def _is_slow(self, now: float) -> bool:
        """Whether the client read too little in the time that is just over."""
        if now - self._since < SLOW_SECONDS:
            return False
        read, self._read, self._since = self._read, 0, now
        return read < SLOW_BYTES
