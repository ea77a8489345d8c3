"""``/v1/runs``: the history of each training job: its parameters, curves and checkpoints."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from app.jobs.values import Bucket, CheckpointInfo, Run, Series
from app.web.dependencies import ServedBy
from app.web.ids import bare_after, bare_id, shown
from app.web.job_schemas import CheckpointList, RunAnswer, RunList, SeriesList
from app.web.jobs import progress, seconds
from app.web.lists import listed

router = APIRouter(prefix="/v1/runs", tags=["jobs"])

Name = Annotated[str, Query(min_length=1, max_length=64, pattern=r"^[ -~]*$")]


@router.get("", response_model=RunList, summary="List runs")
async def list_runs(
    served: ServedBy,
    model: Annotated[str | None, Query(max_length=200, pattern=r"^[ -~]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=100)] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By time.")] = "desc",
) -> Response:
    """Every run, newest first; or those of one model."""
    page = await asyncio.to_thread(
        served.jobs.runs, model=model, after=bare_after("run", after), limit=limit, order=order
    )
    return JSONResponse(listed([_told(run) for run in page.items], has_more=page.has_more))


@router.get("/{id}", response_model=RunAnswer, summary="Look at a run")
async def get_run(served: ServedBy, id: str) -> Response:
    """What was trained, with which libraries, and how far."""
    return JSONResponse(_told(await asyncio.to_thread(served.jobs.run, bare_id("run", id))))


@router.get("/{id}/metrics", response_model=SeriesList, summary="The curves of a run")
async def metrics(
    served: ServedBy,
    id: str,
    name: Annotated[list[Name] | None, Query(description="May be repeated; all if left out.")] = (
        None
    ),
    max_points: Annotated[int, Query(ge=1, le=1000, description="Buckets a curve.")] = 1000,
) -> Response:
    """Each curve in buckets with minimum, maximum, mean and last, so that a spike survives."""
    found = await asyncio.to_thread(served.jobs.metrics, bare_id("run", id), name, max_points)
    return JSONResponse(listed([_curve(series) for series in found], has_more=False))


@router.get("/{id}/checkpoints", response_model=CheckpointList, summary="Checkpoints of a run")
async def checkpoints(served: ServedBy, id: str) -> Response:
    """The furthest first."""
    found = await asyncio.to_thread(served.jobs.checkpoints, bare_id("run", id))
    return JSONResponse(listed([_checkpoint(each) for each in found], has_more=False))


def _told(run: Run) -> dict[str, Any]:
    return {
        "id": shown("run", run.id),
        "object": "run",
        "job_id": shown("job", run.job_id),
        "model": run.model,
        "state": run.state,
        "parameters": run.parameters,
        "tags": run.tags,
        "seed": run.seed,
        "versions": run.versions,
        "last_step": run.last_step,
        "progress": progress(run.progress),
        "model_version": run.model_version,
        "created_at": run.created_at // 1000,
        "started_at": seconds(run.started_at),
        "finished_at": seconds(run.finished_at),
    }


def _curve(series: Series) -> dict[str, Any]:
    points = [_bucket(bucket) for bucket in series.points]
    return {"id": series.name, "object": "metric", "points": points}


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {**dataclasses.asdict(bucket), "at": bucket.at / 1000}


def _checkpoint(checkpoint: CheckpointInfo) -> dict[str, Any]:
    return {
        "id": shown("checkpoint", checkpoint.id),
        "object": "checkpoint",
        "run_id": shown("run", checkpoint.run_id),
        "attempt": checkpoint.attempt,
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "kind": checkpoint.kind,
        "bytes": checkpoint.size_bytes,
        "sha256": checkpoint.sha256,
        "metrics": checkpoint.metrics,
        "created_at": checkpoint.created_at // 1000,
    }
