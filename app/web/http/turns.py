"""Requests begin a few at a time, so that a crowd does not keep everybody else waiting.

Beginning a request (reading its body, looking up its model, asking the engine) takes the event
loop a millisecond or two. If hundreds come at once, they begin in the order in which they
came, ``AT_ONCE`` for each round of the loop; health checks do not wait. Plain ASGI.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

AT_ONCE: Final = 2


class Turns:
    """Passes requests on when it is their turn; those to ``exempt`` paths at once."""

    def __init__(self, app: ASGIApp, exempt: Collection[str]) -> None:
        self.app = app
        self.exempt = exempt
        self._left = AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.exempt:
            await self._turn()
        await self.app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._next_round, loop)
        if self._left and not self._waiting:
            self._left -= 1
            return
        mine = loop.create_future()
        self._waiting.append(mine)
        await mine

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = AT_ONCE
        while self._waiting and self._left:
            first = self._waiting.popleft()
            if not first.done():  # else its client has left
                first.set_result(None)
                self._left -= 1
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            loop.call_soon(self._next_round, loop)
