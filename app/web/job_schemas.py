"""What answers about datasets, jobs and runs look like, for the documentation.

The routes give them as JSON directly. Times are Unix seconds. Knows no database.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.charlm.windows import CorpusFormat
from app.jobs.states import JobState, Wish


class _Page(BaseModel):
    object: Literal["list"]
    first_id: str | int | None
    last_id: str | int | None
    has_more: bool


class DatasetAnswer(BaseModel):
    id: str
    object: Literal["dataset"]
    name: str
    format: CorpusFormat
    bytes: int
    characters: int
    records: int = Field(description="Lines that are not empty.")
    distinct_records: int | None = Field(description="Counted for lines only.")
    symbols: int = Field(description="Distinct characters.")
    longest_record: int
    sha256: str
    warnings: list[str]
    created_at: int


class DatasetList(_Page):
    data: list[DatasetAnswer]


class DatasetDeleted(BaseModel):
    id: str
    object: Literal["dataset"]
    deleted: Literal[True]


class ProgressAnswer(BaseModel):
    step: int
    steps: int | None
    epoch: int
    fraction: float
    characters_per_second: float
    train_loss: float | None = Field(description="Nats a character.")
    validation_bits_per_character: float | None
    eta_seconds: float | None


class JobProblem(BaseModel):
    code: str
    message: str


class ChosenAnswer(BaseModel):
    name: str
    value: str
    reason: str


class JobAnswer(BaseModel):
    id: str
    object: Literal["job"]
    state: JobState
    desired_state: Wish
    model: str
    dataset: str
    spec: dict[str, Any] = Field(description="What was asked for, with every value chosen.")
    chosen: list[ChosenAnswer] = Field(description="Why what was left out is what it is.")
    priority: int
    attempt: int
    max_attempts: int
    progress: ProgressAnswer | None
    run_id: str
    model_version: str | None
    error: JobProblem | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class JobList(_Page):
    data: list[JobAnswer]


class JobDeleted(BaseModel):
    id: str
    object: Literal["job"]
    deleted: Literal[True]


class EventAnswer(BaseModel):
    id: int = Field(description="Only rises; where a stream goes on.")
    object: Literal["job.event"]
    job_id: str
    attempt: int
    at: float
    level: Literal["info", "warning", "error"]
    type: str
    message: str
    payload: dict[str, Any]


class EventList(_Page):
    data: list[EventAnswer]


class RunAnswer(BaseModel):
    id: str
    object: Literal["run"]
    job_id: str
    model: str
    state: JobState
    parameters: dict[str, Any]
    tags: dict[str, Any]
    seed: int
    versions: dict[str, str] = Field(description="Of the libraries that trained.")
    last_step: int
    progress: ProgressAnswer | None
    model_version: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None


class RunList(_Page):
    data: list[RunAnswer]


class BucketAnswer(BaseModel):
    """Neighbouring points as one; min, max and mean are of the finite values."""

    first_step: int
    step: int = Field(description="The last one.")
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


class SeriesList(_Page):
    data: list[SeriesAnswer]


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


class CheckpointList(_Page):
    data: list[CheckpointAnswer]
