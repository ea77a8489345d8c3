"""A body has a deadline for each of its pieces."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Message

from app.web.http import bodies
from app.web.http.problems import BodyTimeout, install


def test_a_body_that_stops_arriving_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)
    app = FastAPI()
    install(app)

    @app.post("/")
    async def read(request: Request) -> None:
        await bodies.read_json(request, bodies.Body)

    arriving: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}] * 3
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0.05 if arriving else 60.0)  # slow, then silent
        return arriving.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert BodyTimeout.code.encode() in sent[1]["body"]
    assert not arriving
