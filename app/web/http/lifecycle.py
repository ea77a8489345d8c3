"""From start to end: which requests are taken, and how those in progress end when time is up.

While the server starts or drains, every request but the health checks is refused. At the end
the tasks of the requests that are left are cancelled, whatever they wait for (a body, the
engine, a thread), and each is told so in the form of its answer: a whole 503 if nothing was
sent yet, an error event, or an error line. Plain ASGI. Knows no route but the health checks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import Overloaded
from .json_text import to_json
from .problems import error_object, problem_response, request_id

HEALTH: Final = frozenset({"/livez", "/readyz"})
"""Answered at any time."""

_RESTART_SECONDS: Final = 5.0  # after which a server that stops may be back


class Lifecycle:
    """Where a server is between its start and its end, and the requests in progress.

    Methods are called on the event loop; ``progress`` is set and ``draining.is_set`` read
    in the thread that does the start, too.
    """

    def __init__(self) -> None:
        self.serving = False
        """Whether the start is over."""
        self.progress = ""
        """How far the start is, as the end of a sentence."""
        self.draining = asyncio.Event()
        """No new request is taken."""
        self.over = False
        """The requests in progress are being ended."""
        self._in_progress: set[asyncio.Task[object]] = set()

    @property
    def busy(self) -> bool:
        """Whether any request is in progress."""
        return bool(self._in_progress)

    def refusal(self) -> Overloaded | None:
        """Why no request is taken now."""
        if self.draining.is_set():
            return stopping()
        if not self.serving:
            so_far = f": {self.progress}" if self.progress else ""
            return Overloaded(f"The server is starting{so_far}.", code="starting")
        return None

    def end(self) -> None:
        """End every request in progress; wait until ``busy`` is false."""
        self.over = True
        for task in self._in_progress:
            task.cancel()

    def enter(self, task: asyncio.Task[object]) -> None:
        self._in_progress.add(task)

    def leave(self, task: asyncio.Task[object]) -> None:
        self._in_progress.discard(task)


def stopping() -> Overloaded:
    """What a request is told that is refused or ended because the server stops."""
    return Overloaded(
        "The server is stopping; try again in a few seconds.",
        retry_after_seconds=_RESTART_SECONDS,
        code="draining",
    )


class Served:
    """Passes requests on while they are taken, and ends them when the time is over."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, self.lifecycle)
        refusal = None if scope["path"] in HEALTH else self._refusal(scope)
        if refusal is None:
            await self._serve(scope, receive, answer)
        else:
            await problem_response(refusal, scope)(scope, receive, answer.send)

    def _refusal(self, scope: Scope) -> Overloaded | None:
        if scope.get("state", {}).get("crowded"):  # says the connection, see ``door``
            return Overloaded(
                "The server has as many connections as it takes; try again later.",
                code="too_many_connections",
            )
        return self.lifecycle.refusal()

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.lifecycle.enter(task)
        try:
            await self.app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not self.lifecycle.over:
                raise
            task.uncancel()
            with suppress(asyncio.CancelledError):  # once more: the event loop ends, too
                await answer.end(scope, receive)
        finally:
            self.lifecycle.leave(task)


class _Answer:
    """What was sent of an answer, and how to end it."""

    def __init__(self, send: Send, lifecycle: Lifecycle) -> None:
        self._send = send
        self._lifecycle = lifecycle
        self._kind: str | None = None  # the media type, once the answer has begun
        self._complete = False
        self._in_line = False  # a very long line was begun

    async def send(self, message: Message) -> None:
        # Noted after sending: a message whose sending is cancelled was not sent at all.
        if message["type"] != "http.response.start":
            await self._send(message)
            self._complete = not message.get("more_body", False)
            self._in_line = not (message.get("body") or b"\n").endswith(b"\n")
            return
        if self._lifecycle.draining.is_set():  # the client must not wait for another answer here
            MutableHeaders(scope=message)["connection"] = "close"
        await self._send(message)
        self._kind = Headers(raw=message["headers"]).get("content-type", "").partition(";")[0]

    async def end(self, scope: Scope, receive: Receive) -> None:
        """Say that the server stops, in the form of the answer.

        Waits for a client that does not read until the server closes its connection. So does
        an answer without a form for an error, as a file or a large JSON object: it can only
        be cut.
        """
        if self._kind is None:
            await problem_response(stopping(), scope)(scope, receive, self.send)
        elif self._complete:
            return
        elif self._kind in _LAST_WORDS:
            error = {"error": error_object(stopping(), request_id(scope))}
            last = _LAST_WORDS[self._kind] % to_json(error)
            last = b"\n" + last if self._in_line else last
            await self.send({"type": "http.response.body", "body": last})
        else:
            while (await receive())["type"] != "http.disconnect":
                pass


#: Media type -> the last bytes of an answer. Handlers send whole events, and whole lines
#: unless they are very long.
_LAST_WORDS: Final = {"text/event-stream": b"data: %b\n\n", "application/x-ndjson": b"%b\n"}
