"""``/v1/runs``: the history of each training job: its parameters, curves and checkpoints."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from ...bounds import EXACT
from ...rendering.ids import bare_after, bare_id
from ...rendering.lists import listed
from ...rendering.runs import (
    CheckpointList,
    RunAnswer,
    RunList,
    SampleList,
    SeriesList,
    checkpoint_object,
    run_object,
    sample_object,
    series_object,
)
from ...validation import at_most
from ..dependencies import ServedBy
from ..http.json_text import JsonAnswer
from ..http.pages import After, Limit, OfModel, Order

router = APIRouter(prefix="/v1/runs", tags=["jobs"])

_MOST_NAMES: Final = 100

Name = Annotated[str, Query(min_length=1, max_length=64, pattern=r"^[ -~]*$")]


@router.get("", response_model=RunList, summary="List runs")
async def list_runs(
    served: ServedBy,
    model: OfModel = None,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
) -> Response:
    """Runs, newest first; optionally only those of one model."""
    page = await asyncio.to_thread(
        served.jobs.runs, model=model, after=bare_after("run", after), limit=limit, order=order
    )
    return JsonAnswer(listed([run_object(run) for run in page.items], has_more=page.has_more))


@router.get("/{id}", response_model=RunAnswer, summary="Show a run")
async def get_run(served: ServedBy, id: str) -> Response:
    """Its parameters, library versions and progress."""
    run = await asyncio.to_thread(served.jobs.get_run, bare_id("run", id))
    return JsonAnswer(run_object(run))


@router.get("/{id}/metrics", response_model=SeriesList, summary="Show the curves of a run")
async def metrics(
    served: ServedBy,
    id: str,
    name: Annotated[
        list[Name] | None,
        at_most(_MOST_NAMES),
        Query(description=f"May be repeated, up to {_MOST_NAMES} times; all if left out."),
    ] = None,
    max_points: Annotated[int, Query(ge=1, le=1000, description="Buckets per curve.")] = 1000,
) -> Response:
    """Each curve in buckets with minimum, maximum, mean and last value, so that spikes survive."""
    found = await asyncio.to_thread(served.jobs.metrics, bare_id("run", id), name, max_points)
    return JsonAnswer(listed([series_object(series) for series in found], has_more=False))


@router.get("/{id}/samples", response_model=SampleList, summary="Show what a run wrote")
async def samples(
    served: ServedBy,
    id: str,
    limit: Limit = 20,
    after: Annotated[int | None, Query(ge=0, le=EXACT, description="A step.")] = None,
    order: Order = "asc",
) -> Response:
    """What the network wrote at each evaluation, from gibberish to text."""
    page = await asyncio.to_thread(
        served.jobs.samples, bare_id("run", id), after=after, limit=limit, order=order
    )
    made = [sample_object(each) for each in page.items]
    return JsonAnswer(listed(made, has_more=page.has_more))


@router.get(
    "/{id}/checkpoints", response_model=CheckpointList, summary="List the checkpoints of a run"
)
async def checkpoints(served: ServedBy, id: str) -> Response:
    """Checkpoints, the highest step first."""
    found = await asyncio.to_thread(served.jobs.checkpoints, bare_id("run", id))
    return JsonAnswer(listed([checkpoint_object(each) for each in found], has_more=False))
