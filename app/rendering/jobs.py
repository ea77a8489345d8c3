"""Jobs and their events as JSON, and the schema of that JSON for the documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from ..jobs.states import JobState, Wish
from ..jobs.values import Event, Job
from .choices import ChoiceAnswer, choice_objects
from .ids import shown
from .lists import ListAnswer
from .progress import ProgressAnswer, progress_object, seconds


class JobProblem(BaseModel):
    code: str
    message: str


class JobAnswer(BaseModel):
    id: str
    object: Literal["job"]
    state: JobState
    desired_state: Wish
    model: str
    dataset: str
    spec: dict[str, Any] = Field(description="The request, with every chosen value.")
    chosen: list[ChoiceAnswer] = Field(description="The reason for each value that was left out.")
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


class JobList(ListAnswer):
    data: list[JobAnswer]


class JobDeleted(BaseModel):
    id: str
    object: Literal["job"]
    deleted: Literal[True]


class EventAnswer(BaseModel):
    id: int = Field(description="Always rises; a stream can resume after it.")
    object: Literal["job.event"]
    job_id: str
    attempt: int
    at: float
    level: Literal["info", "warning", "error"]
    type: str
    message: str
    payload: dict[str, Any]


class EventList(ListAnswer):
    data: list[EventAnswer]


def job_object(job: Job) -> dict[str, Any]:
    """A job as the API shows it."""
    return {
        "id": shown("job", job.id),
        "object": "job",
        "state": job.state,
        "desired_state": job.desired,
        "model": job.model,
        "dataset": job.spec["dataset"],  # kept even if the dataset is deleted
        "spec": job.spec,
        "chosen": choice_objects(job.chosen, job.spec["network"] | job.spec["training"]),
        "priority": job.priority,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "progress": progress_object(job.progress),
        "run_id": shown("run", job.run_id),
        "model_version": job.model_version,
        "error": None
        if job.error is None
        else {"code": job.error.code, "message": job.error.message},
        "created_at": job.created_at // 1000,
        "started_at": seconds(job.started_at),
        "finished_at": seconds(job.finished_at),
    }


def state_object(job: Job) -> dict[str, Any]:
    """How far a job is, as its stream shows it."""
    fields = job_object(job)
    return {name: fields[name] for name in ("id", "state", "attempt", "progress")}


def event_object(event: Event) -> dict[str, Any]:
    """An event of a job as the API shows it."""
    return {
        "id": event.id,
        "object": "job.event",
        "job_id": shown("job", event.job_id),
        "attempt": event.attempt,
        "at": event.at / 1000,
        "level": event.level,
        "type": event.type,
        "message": event.message,
        "payload": event.payload,
    }
