"""Jobs, attempts, events and runs as frozen values, without a database session.

Ids are bare ULIDs; times are integer milliseconds since 1970. Knows no SQL and
no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from ..charlm.sizing import Chosen
from .states import FINAL, JobState, Wish

Level = Literal["info", "warning", "error"]
CheckpointKind = Literal["periodic", "best", "final"]
Order = Literal["asc", "desc"]
T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """Proof of an attempt's lease on a job; its holder runs the job."""

    job_id: str
    number: int  # of the attempt
    token: int


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items of a list, and whether more follow."""

    items: list[T]
    has_more: bool


@dataclass(frozen=True)
class JobProgress:
    """The progress of a job; None where unknown."""

    step: int
    steps: int | None
    epoch: int
    fraction: float
    characters_per_second: float
    train_loss: float | None  # nats per character, mean since the previous value
    validation_bits_per_character: float | None
    eta_seconds: float | None

    @classmethod
    def of(cls, fields: dict[str, Any]) -> JobProgress | None:
        """Progress as stored in the database; None if there is none yet."""
        if not fields:
            return None
        known: dict[str, Any] = {name: fields.get(name) for name in cls.__dataclass_fields__}
        return cls(**known)


@dataclass(frozen=True)
class JobError:
    """Why a job failed: a code for programs, a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Job:
    """What was requested, and its state.

    ``spec`` is the request with every value that was left out filled in; ``chosen`` gives the
    reasons. ``base_model`` and ``model_version`` are ``name@version``.
    """

    id: str
    run_id: str
    model: str
    dataset: str
    base_model: str | None
    parent: str | None
    state: JobState
    desired: Wish
    priority: int
    spec: dict[str, Any]
    chosen: tuple[Chosen, ...]
    attempt: int
    max_attempts: int
    progress: JobProgress | None
    model_version: str | None
    error: JobError | None
    created_at: int
    queued_at: int
    started_at: int | None
    finished_at: int | None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; ``id`` is a cursor and only increases."""

    id: int
    job_id: str
    attempt: int
    at: int
    level: str
    type: str
    message: str
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """The one history that all attempts of a job share."""

    id: str
    job_id: str
    model: str
    state: JobState
    parameters: dict[str, Any]
    tags: dict[str, Any]
    seed: int
    versions: dict[str, str]
    last_step: int
    progress: JobProgress | None
    model_version: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None


@dataclass(frozen=True)
class Bucket:
    """Neighbouring points of a series as one value.

    ``min``, ``max``, ``mean`` and ``last`` are of the finite values, None if there are none;
    ``nonfinite`` counts the others.
    """

    first_step: int
    step: int  # the last one
    at: int
    count: int
    min: float | None
    max: float | None
    mean: float | None
    last: float | None
    nonfinite: int = 0


@dataclass(frozen=True)
class Series:
    """One metric of a run, in order of steps."""

    name: str
    points: tuple[Bucket, ...]


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's file and what is known about it."""

    id: str
    run_id: str
    attempt: int
    step: int
    epoch: int
    kind: str
    uri: str
    size_bytes: int
    sha256: str
    metrics: dict[str, Any]
    created_at: int


@dataclass(frozen=True)
class Sample:
    """What the network wrote after a step; ``at`` in milliseconds."""

    step: int
    at: int
    text: str


@dataclass(frozen=True)
class Point:
    """One measured number to store."""

    name: str
    step: int
    at: int
    value: float
