"""A client with little overhead: HTTP/1.1 over plain asyncio streams, one connection each.

Takes a port and request bodies, returns when the characters of each answer arrived.
Supports just enough HTTP for the servers here: content-length and chunked bodies.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

PATH = "/v1/completions"


class Refused(Exception):
    """The server answered with a status other than 200."""


@dataclass
class Arrivals:
    """One streamed answer: when it was requested, and (time, characters) of each piece."""

    asked: float
    pieces: list[tuple[float, int]] = field(default_factory=list)
    complete: bool = False

    @property
    def first_seconds(self) -> float | None:
        """Seconds to the first character."""
        return self.pieces[0][0] - self.asked if self.pieces else None

    @property
    def seconds(self) -> float:
        """Seconds to the last piece so far."""
        return self.pieces[-1][0] - self.asked

    @property
    def characters(self) -> int:
        return sum(count for _, count in self.pieces)

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces."""
        times = [at for at, _ in self.pieces]
        return [b - a for a, b in pairwise(times)]


class Connection:
    """One connection, kept open; an async context manager."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, body: dict[str, Any], path: str = PATH) -> bytes:
        """The body of the whole answer."""
        return b"".join([chunk async for chunk in self._chunks(body, path)])

    async def stream(self, body: dict[str, Any], into: Arrivals) -> None:
        """Send a request with ``stream`` and record in ``into`` what arrives when."""
        rest = b""
        async for chunk in self._chunks({**body, "stream": True}, PATH):
            now = time.perf_counter()
            *lines, rest = (rest + chunk).split(b"\n")
            characters = sum(_characters(line) for line in lines if line.startswith(b"data: {"))
            if characters:
                into.pieces.append((now, characters))
        into.complete = True

    async def _chunks(self, body: dict[str, Any], path: str) -> AsyncIterator[bytes]:
        sent = json.dumps(body).encode()
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(sent)}\r\n\r\n".encode()
            + sent
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise Refused(head.split(b"\r\n", 1)[0].decode())
        if b"transfer-encoding: chunked" not in head:
            length = head.split(b"content-length:")[1].split(b"\r\n")[0]
            yield await self._reader.readexactly(int(length))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)


def _characters(line: bytes) -> int:
    event: dict[str, Any] = json.loads(line[6:])
    return sum(len(choice["text"]) for choice in event.get("choices", ()))
