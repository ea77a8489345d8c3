"""``/v1/jobs/{id}/events``: the events of a job, as pages or as a live stream.

The stream uses server-sent events. Each event of the job is a message with an id, after
which a client that lost the connection resumes (``Last-Event-ID``). Progress comes as
events named ``progress``, without an id. The last is ``done``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from ...errors import CharloomError, InvalidInput
from ...rendering.ids import bare_id
from ...rendering.jobs import EventList, event_object, job_object, state_object
from ...rendering.lists import listed
from ..dependencies import Backend, ServedBy
from ..http.json_text import JsonAnswer, to_json
from ..http.lifecycle import Lifecycle, stopping
from ..http.pages import Limit
from ..http.problems import error_object, request_id
from ..http.streaming import EVENT_HEADERS, Live, with_pings

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

STREAM: Final = "text/event-stream"
LOOK_SECONDS: Final = 0.5
_AT_ONCE: Final = 100
_MOST_CURSOR: Final = 2**63 - 1

Cursor = Annotated[
    int | None, Query(ge=0, le=_MOST_CURSOR, description="Only events after this id.")
]


@router.get(
    "/{id}/events",
    response_model=EventList,
    responses={200: {"content": {STREAM: {"schema": {"type": "string"}}}}},
    summary="List or stream the events of a job",
)
async def events(
    request: Request,
    served: ServedBy,
    id: str,
    after: Cursor = None,
    limit: Limit = 20,
    last_event_id: Annotated[str | None, Header(description="Where a stream resumes.")] = None,
) -> Response:
    """Events after the one with the id ``after``, oldest first.

    With ``Accept: text/event-stream``, a live stream that ends with the job.
    """
    bare = bare_id("job", id)
    if STREAM not in request.headers.get("accept", ""):
        found = await asyncio.to_thread(served.jobs.events, bare, after=after or 0, limit=limit + 1)
        rows = [event_object(event) for event in found[:limit]]
        return JsonAnswer(listed(rows, has_more=len(found) > limit))
    cursor = _cursor(last_event_id) if last_event_id else after or 0
    await asyncio.to_thread(served.jobs.get, bare)  # an unknown job is a 404, not a stream
    stream = _stream(served, request.app.state.lifecycle, bare, cursor, request_id(request.scope))
    return Live(with_pings(stream), STREAM, headers=EVENT_HEADERS)


async def _stream(
    served: Backend, lifecycle: Lifecycle, job_id: str, cursor: int, request: str
) -> AsyncGenerator[bytes, None]:
    shown_before: Any = None
    try:
        while True:
            # Read the job first: the event that made it final is then among those below.
            job = await asyncio.to_thread(served.jobs.get, job_id)
            while found := await asyncio.to_thread(
                served.jobs.events, job_id, after=cursor, limit=_AT_ONCE
            ):
                cursor = found[-1].id
                yield b"".join(_message(event_object(event), id=event.id) for event in found)
            if job.is_final:
                yield _message(job_object(job), name="done")
                return
            if (job.state, job.progress) != shown_before:
                shown_before = (job.state, job.progress)
                yield _message(state_object(job), name="progress")
            with suppress(TimeoutError):
                await asyncio.wait_for(lifecycle.draining.wait(), LOOK_SECONDS)
                raise stopping()  # at once: a job takes longer than a server waits
    except CharloomError as error:
        yield _message({"error": error_object(error, request)}, name="error")


def _message(fields: dict[str, Any], *, id: int | None = None, name: str | None = None) -> bytes:
    head = "" if id is None else f"id: {id}\n"
    head += "" if name is None else f"event: {name}\n"
    return head.encode() + b"data: " + to_json(fields) + b"\n\n"


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise InvalidInput("Last-Event-ID must be an event's id.", param="Last-Event-ID")
    return min(int(text), _MOST_CURSOR)
