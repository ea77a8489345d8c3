"""Close a connection so that its client can read the answer, although it may still be sending.

Closing a socket while bytes arrive makes the system reset the connection, and the client
loses the answer. So the sending side is closed first; what still arrives is discarded, up to
a bound, until the client closes its side (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_MOST_BYTES: Final = 64 << 20
_MOST_SECONDS: Final = 5.0


class Lingering:
    """The end of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left = _MOST_BYTES
        # Not ``close``: that would wait for a client that does not read.
        self._timer = loop.call_later(_MOST_SECONDS, transport.abort)
        with suppress(OSError, RuntimeError, NotImplementedError):  # the client has left
            transport.write_eof()

    def discard(self, count: int) -> None:
        """Some bytes have arrived."""
        self._left -= count
        if self._left < 0:
            self._transport.abort()

    def stop(self) -> None:
        """The connection is closed."""
        self._timer.cancel()


class ClosedPolitely:
    """A transport whose ``close`` is another function; ``is_over`` says that it was called.

    What is written after that goes nowhere, as with any closed transport. All else is the
    transport's.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        close: Callable[[], None],
        is_over: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._is_over = is_over
        self.close = close

    def write(self, data: bytes) -> None:
        if not self._is_over():
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._is_over() or self._transport.is_closing()

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)
