"""A crowd begins a few at a time, in order; health checks do not wait for it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from app.web.http.turns import AT_ONCE, Turns


async def nothing(*_: Any) -> Any:
    raise AssertionError("nobody reads or sends here")


def test_a_crowd_begins_in_order_and_in_rounds() -> None:
    begun: list[tuple[int, str]] = []
    rounds, now = 0, 1.0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append((rounds, scope["path"]))

    async def run() -> None:
        nonlocal rounds, now
        turns = Turns(app, {"/livez"}, clock=lambda: now)

        def ask(path: str) -> asyncio.Task[None]:
            scope = {"type": "http", "path": path}
            return asyncio.ensure_future(turns(scope, nothing, nothing))

        crowd = [ask(f"/{number}") for number in range(10 * AT_ONCE)]
        crowd[AT_ONCE + 1].cancel()
        crowd.append(ask("/livez"))
        while not all(each.done() for each in crowd):
            await asyncio.sleep(0)
            rounds += 1
        now += 1.0
        late = ask("/late")
        await asyncio.sleep(0)
        assert late.done()

    asyncio.run(run())
    paths = [path for _, path in begun if path not in ("/livez", "/late")]
    wanted = [f"/{number}" for number in range(10 * AT_ONCE) if number != AT_ONCE + 1]
    assert paths == wanted
    assert begun.index((0, "/livez")) <= AT_ONCE
    for number in range(rounds):
        assert sum(1 for when, path in begun if when == number and path != "/livez") <= AT_ONCE
