"""HTTP/1.1 by hand over one connection, so that a client can also behave badly.

Takes a port; gives answers or raises ``Cut`` when an answer ends too early. Requests are sent
in the background: an answer that comes before the whole body is sent is seen. Every wait is
bounded by the caller's ``asyncio.timeout``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from benchmarks.soak.tally import Tally

_HOST: Final = "127.0.0.1"
_CONNECT_SECONDS: Final = 15.0
_LONGEST_ERROR: Final = 1 << 16
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


class Cut(Exception):
    """The answer began and did not end."""


class NoAnswer(Exception):
    """The connection ended before an answer began."""


@dataclass(frozen=True)
class Head:
    status: int
    headers: Mapping[str, str]


class Wire:
    """One connection; an async context manager. May carry several requests, one at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._closing = False

    async def __aenter__(self) -> Self:
        self._closing = False
        opening = asyncio.open_connection(_HOST, self._port, limit=1 << 20)
        self.reader, self.writer = await asyncio.wait_for(opening, _CONNECT_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Begin to send a request; ``headers`` replace the ones that follow from the body."""
        told = {"host": f"{_HOST}:{self._port}", "content-type": JSON}
        if body or method in ("POST", "PUT"):
            told["content-length"] = str(len(body))
        told |= headers or {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {said}" for name, said in told.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    async def head(self) -> Head:
        """The head of the answer; raises NoAnswer."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise NoAnswer from error
        first, *lines = raw.decode("latin-1").split("\r\n")
        named = (line.partition(":") for line in lines if line)
        headers = {name.lower(): said.strip() for name, _, said in named}
        self._closing = headers.get("connection", "").lower() == "close"
        return Head(int(first.split()[1]), headers)

    async def chunks(self, head: Head) -> AsyncIterator[bytes]:
        """The body of the answer; raises Cut."""
        try:
            if "chunked" in head.headers.get("transfer-encoding", ""):
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    yield (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
                return
            left = int(head.headers.get("content-length", 0))
            while left:
                piece = await self.reader.read(min(left, 1 << 18))
                if not piece:
                    raise Cut
                left -= len(piece)
                yield piece
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Cut from error

    async def ask(
        self,
        tally: Tally,
        workload: str,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Send, read the whole answer, count it; returns status and body.

        ``body`` is bytes, or anything that JSON can write. Of large answers only the beginning
        is kept.
        """
        if self._closing:  # the last answer said so
            self.writer.transport.abort()
            await self.__aenter__()
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        self.send(method, path, sent if isinstance(sent, bytes) else sent.encode(), headers)
        head = await self.head()
        kept = b""
        async for piece in self.chunks(head):
            if len(kept) < _LONGEST_ERROR:
                kept += piece
        tally.answer(workload, head.status, code_of(kept) if head.status >= 400 else "")
        return head.status, kept


def code_of(body: bytes) -> str:
    """The code of an error object, ``?`` if it has none."""
    try:
        told = json.loads(body)
        error = told.get("error", told)  # /readyz has its code beside what is missing
        return str(error["code"]) if isinstance(error, dict) else "?"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "?"
