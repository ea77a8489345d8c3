"""``/v1/jobs``: submit, show and control training jobs. All logic is in ``app.jobs``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from ...jobs.spec import JobSpec
from ...jobs.states import JobState
from ...jobs.values import Job
from ...rendering.ids import bare_after, bare_id, shown
from ...rendering.jobs import JobAnswer, JobDeleted, JobList, job_object
from ...rendering.lists import deleted_object, listed
from ..dependencies import ServedBy
from ..http.bodies import documented, read_document
from ..http.json_text import JsonAnswer
from ..http.pages import After, Limit, OfModel, Order
from ..http.strict_json import Most

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

MOST: Final = Most(1 << 20, 1_000)


@router.post(
    "",
    response_model=JobAnswer,
    status_code=202,
    openapi_extra=documented(JobSpec, most=MOST),
    summary="Submit a training job",
)
async def submit(
    request: Request,
    served: ServedBy,
    idempotency_key: Annotated[
        str | None, Header(description="The same key and body give the same job, for a day.")
    ] = None,
) -> Response:
    """Only ``model`` and ``dataset`` are required; the answer shows every value chosen."""
    spec = await read_document(request, MOST, JobSpec.parse)
    job = await asyncio.to_thread(served.jobs.submit, spec, idempotency_key=idempotency_key)
    return JsonAnswer(job_object(job), 202, {"location": f"/v1/jobs/{shown('job', job.id)}"})


@router.get("", response_model=JobList, summary="List jobs")
async def list_jobs(
    served: ServedBy,
    state: Annotated[JobState | None, Query()] = None,
    model: OfModel = None,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
) -> Response:
    """Jobs, newest first; optionally only those in one state or of one model."""
    page = await asyncio.to_thread(
        served.jobs.list,
        state=state,
        model=model,
        after=bare_after("job", after),
        limit=limit,
        order=order,
    )
    return JsonAnswer(listed([job_object(job) for job in page.items], has_more=page.has_more))


@router.get("/{id}", response_model=JobAnswer, summary="Show a job")
async def get_job(served: ServedBy, id: str) -> Response:
    """Its state, its progress and the time left."""
    return await _about(served.jobs.get, id)


@router.post("/{id}/cancel", response_model=JobAnswer, summary="Cancel a job")
async def cancel(served: ServedBy, id: str) -> Response:
    """End it without a model; refused once publishing has begun."""
    return await _about(served.jobs.cancel, id)


@router.post("/{id}/pause", response_model=JobAnswer, summary="Pause a job")
async def pause(served: ServedBy, id: str) -> Response:
    """The job writes a checkpoint and frees its slot for the next job."""
    return await _about(served.jobs.pause, id)


@router.post("/{id}/resume", response_model=JobAnswer, summary="Resume a job")
async def resume(served: ServedBy, id: str) -> Response:
    """The job continues exactly where it was paused."""
    return await _about(served.jobs.resume, id)


@router.delete("/{id}", response_model=JobDeleted, summary="Delete a finished job")
async def delete_job(served: ServedBy, id: str) -> Response:
    """Delete it with its run, events, metrics and checkpoints; its model stays."""
    bare = bare_id("job", id)
    await asyncio.to_thread(served.jobs.delete, bare)
    return JsonAnswer(deleted_object("job", shown("job", bare)))


async def _about(do: Callable[[str], Job], id: str) -> Response:
    return JsonAnswer(job_object(await asyncio.to_thread(do, bare_id("job", id))))
