"""Answers sent while they are produced, and work that stops when the client leaves.

Plain ASGI: Starlette's own streaming response would consume the request's body
while it listens for a disconnect. Knows bytes, and that an engine's stream can be
collected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...engine.piece import Piece
from ...engine.stream import AsyncStream

T = TypeVar("T")

PING_SECONDS: Final = 15.0
_AHEAD: Final = 4  # pieces of a body

PING: Final = b": ping\n\n"
EVENT_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Live(Response):
    """Sends pieces as they come; closes their generator when the client leaves.

    A piece is asked for when the client has taken those before it, but for the 64 KiB that
    its connection buffers (see ``stalling`` for a client that takes nothing any more).

    With ``watch`` this class listens for the client's disconnect; without, the
    generator reads the request's body itself and must notice. ``after`` is always
    called at the end, even if the generator never started.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str,
        *,
        headers: Mapping[str, str] | None = None,
        watch: bool = True,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(None, headers=headers, media_type=media_type)
        if "content-length" not in (headers or {}):
            del self.headers["content-length"]  # of an empty body; ours comes in pieces
        self._pieces = pieces
        self._watch = watch
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._pieces):
                if self._watch:
                    await while_connected(receive, self._send_all(send))
                else:
                    await self._send_all(send)
        except ClientDisconnect:
            pass  # the client has left
        finally:
            self._after()

    async def _send_all(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Arriving:
    """A request's body that is read while it is used, so that a client that leaves is noticed.

    ``read`` runs beside whoever uses ``pieces``.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        self._over = False

    async def read(self) -> None:
        """Read the body, then wait. Raises ClientDisconnect when the client leaves."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            await self._pieces.put(message.get("body", b""))
            more = message.get("more_body", False)
        await self._pieces.put(None)
        await _gone(self._receive)
        raise ClientDisconnect

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece; called again, what is left of it."""
        while not self._over:
            piece = await self._pieces.get()
            if piece is None:
                self._over = True
            else:
                yield piece


async def collect(receive: Receive, stream: AsyncStream) -> list[Piece]:
    """All pieces of a stream. Raises ClientDisconnect if the client leaves first."""
    pieces = stream.collected()  # on an idle server they are often there already
    return await while_connected(receive, stream.collect()) if pieces is None else pieces


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled if the client leaves first.

    The request's body must have been read before. Raises ClientDisconnect.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for each in (working, leaving):
            each.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def with_pings(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events, and a comment after each silence (proxies close idle connections)."""
    upcoming: asyncio.Future[bytes] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait({upcoming}, timeout=PING_SECONDS)
            if not done:
                yield PING
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield event
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()


async def _next(events: AsyncIterator[bytes]) -> bytes:
    return await anext(events)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
