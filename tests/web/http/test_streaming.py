"""Answers that go out while they are made: pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.web.http import streaming
from app.web.http.streaming import PING, Arriving, with_pings


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


def test_what_is_left_of_a_body_is_nothing_once_it_was_read() -> None:
    messages = [b"one", b"two", b""]

    async def receive() -> dict[str, object]:
        if not messages:
            await asyncio.Event().wait()
        body = messages.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(messages)}

    async def run() -> tuple[bytes, bytes]:
        body = Arriving(receive)
        reading = asyncio.ensure_future(body.read())
        first = b"".join([piece async for piece in body.pieces()])
        rest = b"".join([piece async for piece in body.pieces()])
        reading.cancel()
        return first, rest

    assert asyncio.run(asyncio.wait_for(run(), 10)) == (b"onetwo", b"")
