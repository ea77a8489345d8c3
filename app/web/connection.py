"""One client's connection: HTTP parsed in C, with a cap on everything that is not a body.

Uvicorn's protocol over httptools, which by itself would gather a head of any
size. Bytes that arrive while neither a head is completed nor a body goes on (a
long head, chunk extensions, trailers) are counted here, and past
``MOST_HEAD_BYTES`` the connection is refused. What is not HTTP gets the one
shape of every error. A wish to speak another protocol (``Upgrade``) is ignored,
as the standard allows (RFC 9110, section 7.8).

Knows no route.
"""

from __future__ import annotations

import json
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import InvalidInput
from app.web.identifiers import fresh
from app.web.problems import error_object

MOST_HEAD_BYTES: Final = 64 << 10
"""Of a request's line and headers together, and of what stands between pieces of a body."""

_TOO_LARGE: Final = f"The request's head is larger than {MOST_HEAD_BYTES:,} bytes."
_NOT_HTTP: Final = "This is not HTTP, or its target cannot be read."


class Connection(HttpToolsProtocol):
    """A connection of one client to the server."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._idle_bytes = 0  # since the last head or piece of a body

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as wish:
                # The parser takes what follows for another protocol; it is the next request.
                data = data[wish.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self._refuse(_TOO_LARGE if self._idle_bytes > MOST_HEAD_BYTES else _NOT_HTTP)
                return
        if self._idle_bytes > MOST_HEAD_BYTES:
            self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        if self._idle_bytes > MOST_HEAD_BYTES and self._head_bytes() > MOST_HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser stops; it is refused
        self._idle_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, message: str) -> None:
        """Say so, unless an answer is under way; then hang up."""
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
