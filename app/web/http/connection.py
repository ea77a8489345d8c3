"""One client's connection: HTTP parsed in C, with a limit on everything but bodies.

Extends Uvicorn's protocol over httptools, which alone would collect a head of any
size. This class counts the bytes since the last complete head or piece of a body (a
long head, chunk extensions, trailers) and refuses the connection past
``MOST_HEAD_BYTES``. A head must arrive within ``HEAD_SECONDS``. Input that is not HTTP
gets the same error shape as everything else. A request to switch protocols
(``Upgrade``) is ignored, as the standard allows (RFC 9110, section 7.8).

How many connections there may be is the business of ``door``; how one ends whose client
still sends, of ``lingering``; when a client counts as gone, of ``stalling``. Knows no route.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import httptools
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ...errors import InvalidInput
from .door import Door
from .identifiers import fresh
from .json_text import to_json
from .lingering import ClosedPolitely, Lingering
from .problems import error_object
from .stalling import STALL_SECONDS, StallGuard

MOST_HEAD_BYTES: Final = 64 << 10
"""For a request line and headers together, and for bytes between pieces of a body."""

HEAD_SECONDS: Final = 10.0
"""For a head to arrive whole, from the connection's start or the head's first byte."""

_READ_FIRST_SECONDS: Final = 0.05
_VERSIONS: Final = ("1.0", "1.1")
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_TOO_LARGE: Final = f"The request line and headers are larger than {MOST_HEAD_BYTES:,} bytes."
_NOT_HTTP: Final = "This is not HTTP/1.1, or the request's target cannot be read."


class Connection(HttpToolsProtocol):
    """A connection of one client to the server."""

    def __init__(
        self,
        *arguments: Any,
        door: Door | None = None,
        head_seconds: float = HEAD_SECONDS,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._door = Door() if door is None else door  # an empty one is falsy
        self._crowded = False  # all others are busy: only to be told so
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = False  # a head has begun
        self._heard_at = 0.0  # when data last arrived
        self._idle_bytes = 0  # since the last head or piece of a body
        self._known_head = False  # whether the parser is fed a head already read
        self._lingering: Lingering | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()  # the first is being answered
        self._last_timer: asyncio.TimerHandle | None = None  # after the connection was closed

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def waiting_since(self) -> float | None:
        waits = self._arriving and self._lingering is None and not self.flow.read_paused
        return self._heard_at if waits else None

    def drop(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stall = StallGuard(self.loop, transport)
        self._crowded = not self._door.enter(self)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        self._stall.stop()
        self._untime_head()
        if self._lingering is not None:
            self._lingering.stop()
        if self._last_timer is not None:
            self._last_timer.cancel()
        self._abandon()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.start()

    def resume_writing(self) -> None:
        self._stall.stop()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._stall.heard()
        self._heard_at = time.monotonic()
        if self._lingering is not None:
            self._lingering.discard(len(data))
            return
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as wish:
                # The parser treats what follows as another protocol.
                data = data[wish.args[0] :]
                if not self._go_on():
                    self._refuse(_NOT_HTTP, code="invalid_http")
                    return
            except httptools.HttpParserError:
                message = _TOO_LARGE if self._idle_bytes > MOST_HEAD_BYTES else _NOT_HTTP
                self._refuse(message, code="invalid_http")
                return
        if self._idle_bytes > MOST_HEAD_BYTES:
            self._refuse(_TOO_LARGE, code="invalid_http")
        elif self._head_timer is None and (self._in_head or not self._unanswered):
            self._time_head()  # also after a line end, which begins no head

    def _go_on(self) -> bool:
        """Start a new parser for what follows a head with Upgrade: its body or the next request.

        False if where the body ends cannot be read.
        """
        self.parser = httptools.HttpRequestParser(self)
        if framing := self._framing():
            self._known_head = True
            try:
                self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
            except httptools.HttpParserError:
                return False
            finally:
                self._known_head = False
        return True

    def _framing(self) -> bytes:
        """The headers that define where the body ends."""
        lines = (b"%b: %b\r\n" % each for each in self.headers if each[0] in _FRAMING)
        return b"".join(lines)

    def on_message_begin(self) -> None:
        if not self._known_head:
            self._in_head = True
            super().on_message_begin()
            if self._crowded:
                self.scope["state"]["crowded"] = True

    def on_url(self, url: bytes) -> None:
        if not self._known_head:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._known_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._known_head:
            return
        if self._idle_bytes > MOST_HEAD_BYTES and self._head_bytes() > MOST_HEAD_BYTES:
            raise ValueError("the head is too large")  # stops the parser; the connection is refused
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("another version of HTTP")
        self._idle_bytes = 0
        self._in_head = False
        self._untime_head()
        self._door.spoke(self)
        super().on_headers_complete()
        cycle = self.cycle
        self._unanswered.append(cycle)
        cycle.keep_alive = cycle.keep_alive and not self._crowded
        cycle.transport = ClosedPolitely(  # type: ignore[assignment]
            self.transport, self._close, lambda: self._lingering is not None
        )
        cycle.send = partial(_send, cycle, cycle.send)  # type: ignore[method-assign]

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not (self.parser.should_upgrade() and self._framing()):  # else its body follows
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        # A request that arrived while the loop was busy must be read first.
        self.timeout_keep_alive_task = self.loop.call_later(_READ_FIRST_SECONDS, self._shut)

    def on_response_complete(self) -> None:
        if self._lingering is None and self._arriving:
            self._close()
        if self._unanswered:
            self._unanswered.popleft()
        if self._lingering is not None:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if not self._unanswered and not self.transport.is_closing():
            self._door.rests(self)

    @property
    def _arriving(self) -> bool:
        """Whether more of the body of the request that is being answered is to come."""
        return bool(self._unanswered) and self._unanswered[0].more_body

    def _close(self) -> None:
        """Close the connection; if the client may still be sending, when it has stopped."""
        if self.transport.is_closing() or self._lingering is not None:
            return
        if self._arriving:
            self._linger()
        else:
            self._shut()

    def _shut(self) -> None:
        """Close the connection once everything is sent; a client that does not read is cut off."""
        if not self.transport.is_closing():
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self._last_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def _abandon(self) -> None:
        """What is still being answered reaches nobody."""
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _linger(self) -> None:
        self._abandon()
        self._door.rests(self)
        self.flow.resume_reading()
        self._unset_keepalive_if_required()
        self._lingering = Lingering(self.loop, self.transport)

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_seconds, self._head_is_late)

    def _untime_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.flow.read_paused or self._unanswered:  # we ourselves do not read it yet
            self._time_head()
        elif self._in_head:
            message = f"The head of the request did not arrive within {self._head_seconds:g} s."
            self._refuse(message, status="408 Request Timeout", code="head_timeout")
        else:
            self._shut()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, message: str, *, code: str, status: str = "400 Bad Request") -> None:
        """Send the error, unless an answer is under way; then close the connection."""
        if self.transport.is_closing() or self._lingering is not None:
            return
        current = self._unanswered[0] if self._unanswered else None
        if current is not None and current.response_started:
            # Its answer comes first, and is the last.
            current.keep_alive = False
            self.pipeline.clear()
            self.flow.pause_reading()
            return
        name = f"req_{fresh()}"
        error = error_object(InvalidInput(message, code=code), name)
        body = to_json({"error": error})
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status.encode(), name.encode(), len(body), body)
        )
        self._linger()


async def _send(
    cycle: RequestResponseCycle,
    send: Callable[[ASGISendEvent], Awaitable[None]],
    message: ASGISendEvent,
) -> None:
    """Send; an error that comes before the request is whole is the connection's last answer."""
    if message["type"] == "http.response.start" and message["status"] >= 400 and cycle.more_body:
        cycle.keep_alive = False
    await send(message)
