"""Requests begin a few at a time, so that a crowd does not keep everybody else waiting.

Beginning a request (reading its body, looking up its model, asking the engine) takes the event
loop a millisecond or two. If hundreds come at once, they begin in the order in which they
came, ``AT_ONCE`` for each round of the loop; health checks do not wait. Plain ASGI.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

AT_ONCE: Final = 2
"""Requests that begin in one round, and at most every two milliseconds without waiting."""

_SECONDS: Final = 0.002


class Turns:
    """Passes requests on when it is their turn; those to ``exempt`` paths at once."""

    def __init__(
        self,
        app: ASGIApp,
        exempt: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.exempt = exempt
        self._clock = clock
        self._since = 0.0
        self._left = AT_ONCE  # since then
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.exempt and not self._free():
            await self._turn()
        await self.app(scope, receive, send)

    def _free(self) -> bool:
        """Whether a request may begin now. No round of the loop is asked for, which would cost
        a lonely request more than its turn."""
        now = self._clock()
        if now - self._since >= _SECONDS:
            self._since, self._left = now, AT_ONCE
        if self._waiting or not self._left:
            return False
        self._left -= 1
        return True

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._next_round, loop)
        mine = loop.create_future()
        self._waiting.append(mine)
        await mine

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        left = AT_ONCE
        while self._waiting and left:
            first = self._waiting.popleft()
            if not first.done():  # else its client has left
                first.set_result(None)
                left -= 1
        if self._waiting:
            loop.call_soon(self._next_round, loop)
