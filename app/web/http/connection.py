"""One client's connection: HTTP parsed in C, with a limit on everything but bodies.

Extends Uvicorn's protocol over httptools, which alone would collect a head of any
size. This class counts the bytes since the last complete head or piece of a body (a
long head, chunk extensions, trailers) and refuses the connection past
``MOST_HEAD_BYTES``. Input that is not HTTP gets the same error shape as everything
else. A request to switch protocols (``Upgrade``) is ignored, as the standard allows
(RFC 9110, section 7.8).

Knows no route.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...errors import InvalidInput
from .identifiers import fresh
from .problems import error_object
from .stalling import StallGuard

MOST_HEAD_BYTES: Final = 64 << 10
"""For a request line and headers together, and for bytes between pieces of a body."""

_FRAMING: Final = (b"content-length", b"transfer-encoding")
_TOO_LARGE: Final = f"The request line and headers are larger than {MOST_HEAD_BYTES:,} bytes."
_NOT_HTTP: Final = "This is not HTTP, or the request's target cannot be read."


class Connection(HttpToolsProtocol):
    """A connection of one client to the server."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._idle_bytes = 0  # since the last head or piece of a body
        self._known_head = False  # whether the parser is fed a head already read
        self._stall: StallGuard | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stall = StallGuard(self.loop, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall is not None:
            self._stall.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is not None:
            self._stall.start()

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.stop()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._stall is not None:
            self._stall.heard()
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as wish:
                # The parser treats what follows as another protocol.
                data = data[wish.args[0] :]
                self._go_on()
            except httptools.HttpParserError:
                self._refuse(_TOO_LARGE if self._idle_bytes > MOST_HEAD_BYTES else _NOT_HTTP)
                return
        if self._idle_bytes > MOST_HEAD_BYTES:
            self._refuse(_TOO_LARGE)

    def _go_on(self) -> None:
        """Start a new parser for what follows a head with Upgrade: its body or the next request."""
        self.parser = httptools.HttpRequestParser(self)
        if framing := self._framing():
            self._known_head = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
            self._known_head = False

    def _framing(self) -> bytes:
        """The headers that define where the body ends."""
        lines = (b"%b: %b\r\n" % each for each in self.headers if each[0] in _FRAMING)
        return b"".join(lines)

    def on_message_begin(self) -> None:
        if not self._known_head:
            super().on_message_begin()

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
        self._idle_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not (self.parser.should_upgrade() and self._framing()):  # else its body follows
            super().on_message_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, message: str) -> None:
        """Send the error, unless an answer is under way; then close the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            name = f"req_{fresh()}"
            error = error_object(InvalidInput(message, code="invalid_http"), name)
            body = json.dumps({"error": error}).encode()
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                b"x-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (name.encode(), len(body), body)
            )
        self.transport.close()
