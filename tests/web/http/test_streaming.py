"""Answers that go out while they are made: pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.web.http import streaming
from app.web.http.streaming import PING, with_pings


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
