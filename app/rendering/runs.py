"""Runs, their curves and checkpoints as JSON, and the schema of that JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from ..jobs.states import JobState
from ..jobs.values import Bucket, CheckpointInfo, Run, Sample, Series
from .ids import shown
from .lists import ListAnswer
from .progress import ProgressAnswer, progress_object, seconds


class RunAnswer(BaseModel):
    id: str
    object: Literal["run"]
    job_id: str
    model: str
    state: JobState
    parameters: dict[str, Any]
    tags: dict[str, Any]
    seed: int
    versions: dict[str, str] = Field(description="Versions of the libraries used.")
    last_step: int
    progress: ProgressAnswer | None
    model_version: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class RunList(ListAnswer):
    data: list[RunAnswer]


class BucketAnswer(BaseModel):
    """Neighbouring points merged; min, max and mean are of the finite values."""

    first_step: int
    step: int = Field(description="The last step.")
    at: float
    count: int
    min: float | None
    max: float | None
    mean: float | None
    last: float | None
    nonfinite: int


class SeriesAnswer(BaseModel):
    id: str = Field(description="The metric's name.")
    object: Literal["metric"]
    points: list[BucketAnswer]


class SeriesList(ListAnswer):
    data: list[SeriesAnswer]


class SampleAnswer(BaseModel):
    id: str = Field(description="The step, for `after`.")
    object: Literal["sample"]
    step: int
    at: float
    text: str = Field(description="Eight lines, or 200 characters of a text; always one seed.")


class SampleList(ListAnswer):
    data: list[SampleAnswer]


class CheckpointAnswer(BaseModel):
    id: str
    object: Literal["checkpoint"]
    run_id: str
    attempt: int
    step: int
    epoch: int
    kind: Literal["periodic", "best", "final"]
    bytes: int
    sha256: str
    metrics: dict[str, Any]
    created_at: int


class CheckpointList(ListAnswer):
    data: list[CheckpointAnswer]


def run_object(run: Run) -> dict[str, Any]:
    """A run as the API shows it."""
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
        "progress": progress_object(run.progress),
        "model_version": run.model_version,
        "created_at": run.created_at // 1000,
        "started_at": seconds(run.started_at),
        "finished_at": seconds(run.finished_at),
    }


def series_object(series: Series) -> dict[str, Any]:
    """One curve of a run."""
    points = [_bucket(bucket) for bucket in series.points]
    return {"id": series.name, "object": "metric", "points": points}


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {**asdict(bucket), "at": bucket.at / 1000}


def sample_object(sample: Sample) -> dict[str, Any]:
    """What the network of a run wrote after a step."""
    return {
        "id": str(sample.step),
        "object": "sample",
        "step": sample.step,
        "at": sample.at / 1000,
        "text": sample.text,
    }


def checkpoint_object(checkpoint: CheckpointInfo) -> dict[str, Any]:
    """A checkpoint as the API shows it."""
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
