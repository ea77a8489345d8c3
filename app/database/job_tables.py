"""The tables of training jobs: what was requested, who runs it, and the result.

A job is what was requested; an attempt is one try at it, by one training process that holds
its lease; a run is the history that all attempts of a job share. Constraints are declared here
as well as enforced in the code above. Knows no queries.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from . import dataset_tables  # noqa: F401 (jobs refer to it)
from .job_states import LEASED, JobState
from .tables import NAME_LENGTH, Base, BigId, Digest, Milliseconds, UlidText

KEY_LENGTH: Final = 255  # of an idempotency key
METRIC_KINDS: Final = ("finite", "nan", "inf", "-inf")
CHECKPOINT_KINDS: Final = ("periodic", "best", "final")


def _one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class JobRow(Base):
    """What was requested, and its state.

    ``lease_token`` rises with every claim: a process with an older token has lost the job.
    ``attempts_used`` counts attempts since the last checkpoint.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_one_of("state", JobState), name="state"),
        CheckConstraint("desired_state IN ('run', 'pause', 'cancel')", name="desired_state"),
        CheckConstraint(
            "(state = 'succeeded') = (model_version IS NOT NULL)", name="succeeded_has_version"
        ),
        CheckConstraint(
            f"({_one_of('state', sorted(LEASED))}) = (lease_expires_at IS NOT NULL)",
            name="leased_has_lease",
        ),
        CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="failed_has_error"),
        # In the order of claiming, so that the next job is the first entry.
        Index(
            "ix_jobs_state_priority_queued_at",
            "state",
            text("priority DESC"),
            "queued_at",
            "id",
        ),
        Index("ix_jobs_lease_expires_at", "lease_expires_at"),
        Index("ix_jobs_model_name", "model_name"),
        Index("ix_jobs_dataset_id", "dataset_id"),
    )

    id: Mapped[UlidText] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    spec_hash: Mapped[Digest]
    chosen: Mapped[dict[str, Any]]
    dataset_id: Mapped[UlidText | None] = mapped_column(
        ForeignKey("datasets.id", ondelete="SET NULL")
    )
    model_name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    base_version: Mapped[str | None] = mapped_column(String(NAME_LENGTH + 12))
    parent_job_id: Mapped[UlidText | None]
    state: Mapped[str] = mapped_column(String(16))
    desired_state: Mapped[str] = mapped_column(String(8))
    priority: Mapped[int]
    queued_at: Mapped[Milliseconds]
    not_before: Mapped[Milliseconds]
    attempt_number: Mapped[int]
    attempts_used: Mapped[int]
    max_attempts: Mapped[int]
    lease_token: Mapped[int] = mapped_column(BigInteger)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[Milliseconds | None]
    model_version: Mapped[str | None] = mapped_column(String(NAME_LENGTH + 12))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Milliseconds]
    started_at: Mapped[Milliseconds | None]
    finished_at: Mapped[Milliseconds | None]


class AttemptRow(Base):
    """One attempt at a job.

    ``executor_ref`` is the executor's reference to its runner; ``host``, ``pid`` and
    ``pid_started`` (seconds from the machine's start) are reported by the runner itself.
    """

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: Mapped[UlidText] = mapped_column(primary_key=True)
    job_id: Mapped[UlidText] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    token: Mapped[int] = mapped_column(BigInteger)
    executor: Mapped[str] = mapped_column(String(32))
    executor_ref: Mapped[str | None] = mapped_column(Text)
    host: Mapped[str | None] = mapped_column(String(200))
    pid: Mapped[int | None] = mapped_column(BigInteger)
    pid_started: Mapped[float | None] = mapped_column(Double)
    started_at: Mapped[Milliseconds]
    last_heartbeat_at: Mapped[Milliseconds | None]
    last_progress_at: Mapped[Milliseconds | None]  # None: no progress is expected now
    ended_at: Mapped[Milliseconds | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    exit_code: Mapped[int | None]


class RunRow(Base):
    """The history of one training, without gaps or repetitions even after crashes."""

    __tablename__ = "runs"

    id: Mapped[UlidText] = mapped_column(primary_key=True)
    job_id: Mapped[UlidText] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    parameters: Mapped[dict[str, Any]]
    tags: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    versions: Mapped[dict[str, Any]]  # of the libraries that trained
    last_step: Mapped[int] = mapped_column(BigInteger)
    progress: Mapped[dict[str, Any]]


class MetricNameRow(Base):
    """A metric's name, so that points store only a number for it."""

    __tablename__ = "metric_names"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)


class MetricPointRow(Base):
    """One measured number of a run; ``value`` is 0 where ``kind`` says it is not finite."""

    __tablename__ = "metric_points"
    __table_args__ = (CheckConstraint(_one_of("kind", METRIC_KINDS), name="kind"),)

    run_id: Mapped[UlidText] = mapped_column(
        ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    name_id: Mapped[int] = mapped_column(ForeignKey("metric_names.id"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt_number: Mapped[int]
    wall_ms: Mapped[Milliseconds]
    value: Mapped[float] = mapped_column(Double)
    kind: Mapped[str] = mapped_column(String(8))


class RunSampleRow(Base):
    """What a run's network wrote after a step."""

    __tablename__ = "run_samples"

    run_id: Mapped[UlidText] = mapped_column(
        ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt_number: Mapped[int]
    wall_ms: Mapped[Milliseconds]
    text: Mapped[str] = mapped_column(Text)


class CheckpointRow(Base):
    """A file to resume from; ``uri`` is its key in the store of checkpoints."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        UniqueConstraint("run_id", "attempt_number", "step", "kind"),
        CheckConstraint(_one_of("kind", CHECKPOINT_KINDS), name="kind"),
    )

    id: Mapped[UlidText] = mapped_column(primary_key=True)
    run_id: Mapped[UlidText] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    attempt_number: Mapped[int]
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[int]
    uri: Mapped[str] = mapped_column(Text)
    sha256: Mapped[Digest]
    bytes: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(8))
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[Milliseconds]


class EventRow(Base):
    """Something that happened to a job; ``id`` is the cursor of the live stream."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job_id_id", "job_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[BigId] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[UlidText] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt_number: Mapped[int]
    at: Mapped[Milliseconds]
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]]


class IdempotencyKeyRow(Base):
    """The job that a client's key made."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(KEY_LENGTH), primary_key=True)
    request_hash: Mapped[Digest]
    resource_id: Mapped[UlidText]
    expires_at: Mapped[Milliseconds]
