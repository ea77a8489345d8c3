"""Answers that go out while they are made: clients that take nothing, pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from app.web.http import streaming
from app.web.http.streaming import PING, Live, with_pings


async def _numbers(closed: list[str]) -> AsyncGenerator[bytes, None]:
    try:
        for number in range(1000):
            yield str(number).encode()
    finally:
        closed.append("closed")


def test_a_client_that_takes_nothing_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STALL_SECONDS", 0.05)
    closed: list[str] = []

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()  # the connection's buffers are full

    live = Live(_numbers(closed), "text/plain", after=lambda: closed.append("after"))
    asyncio.run(asyncio.wait_for(live({"type": "http"}, never, send), 10))
    assert closed == ["closed", "after"]


def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.01)

    async def slow() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await asyncio.sleep(0.05)
        yield b"last"

    async def read() -> list[bytes]:
        return [each async for each in with_pings(slow())]

    got = asyncio.run(read())
    assert (got[0], got[-1]) == (b"first", b"last")
    assert PING in got
