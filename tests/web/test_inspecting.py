"""Readings take turns, stop when nobody waits for them, and end when their time is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.errors import Overloaded, TooLate
from app.web.inspecting import MOST, Inspecting


async def connected() -> Message:
    await asyncio.sleep(60)
    raise AssertionError


def until_stopped(stopped: Callable[[], bool]) -> str:
    end = time.monotonic() + 10
    while not stopped() and time.monotonic() < end:
        time.sleep(0.005)
    return "stopped" if stopped() else "never"


def test_a_reading_that_takes_too_long_is_stopped() -> None:
    async def run() -> None:
        inspecting = Inspecting(0.1)
        with pytest.raises(TooLate):
            await inspecting.run(connected, until_stopped)
        assert await inspecting.run(connected, lambda stopped: "next") == "next"
        inspecting.close()

    asyncio.run(run())


def test_a_client_that_leaves_stops_its_reading() -> None:
    ended = threading.Event()

    async def gone() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    def work(stopped: Callable[[], bool]) -> None:
        until_stopped(stopped)
        ended.set()

    async def run() -> None:
        inspecting = Inspecting(30)
        with pytest.raises(ClientDisconnect):
            await inspecting.run(gone, work)
        assert await asyncio.to_thread(ended.wait, 5)
        inspecting.close()

    asyncio.run(run())


def test_a_few_wait_and_more_are_refused() -> None:
    async def run() -> None:
        inspecting = Inspecting(30)
        free = threading.Event()
        waiting = [
            asyncio.create_task(inspecting.run(connected, lambda stopped: free.wait(10)))
            for _ in range(MOST)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await inspecting.run(connected, lambda stopped: True)
        free.set()
        assert all(await asyncio.gather(*waiting))
        inspecting.close()

    asyncio.run(run())
