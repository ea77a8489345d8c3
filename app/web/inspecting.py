"""Texts that are read step by step to look inside a network: one at a time, in one thread.

A reading takes up to a second of one processor. It stops when its client leaves or its time is
over; when several wait already, another one is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from starlette.types import Receive

from ..errors import Overloaded, TooLate
from .http.streaming import while_connected

T = TypeVar("T")

MOST: Final = 4
"""Readings at a time, those that wait included."""

_RETRY_SECONDS: Final = 1.0


class Inspecting:
    """The readings of a server; each may take ``seconds``, with its wait."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, "inspecting")
        self._asked = 0

    async def run(self, receive: Receive, work: Callable[[Callable[[], bool]], T]) -> T:
        """The result of ``work``, which asks the function it is given whether to stop.

        Raises Overloaded, TooLate, and ClientDisconnect if the client leaves first.
        """
        if self._asked >= MOST:
            raise Overloaded(
                "Other texts are being inspected; try again later.",
                retry_after_seconds=_RETRY_SECONDS,
            )
        stopped = threading.Event()

        async def done() -> T:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, partial(work, stopped.is_set))

        self._asked += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await while_connected(receive, done())
        except TimeoutError as error:
            raise TooLate("The text was not read within the time limit.") from error
        finally:
            self._asked -= 1
            stopped.set()

    def close(self) -> None:
        """Begin no more readings."""
        self._thread.shutdown(wait=False, cancel_futures=True)
