"""The progress and times of jobs and runs as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from ..jobs.values import JobProgress


class ProgressAnswer(BaseModel):
    step: int
    steps: int | None
    epoch: int
    fraction: float
    characters_per_second: float
    train_loss: float | None = Field(description="Nats per character.")
    validation_bits_per_character: float | None
    eta_seconds: float | None


def progress_object(made: JobProgress | None) -> dict[str, Any] | None:
    """The progress of a job or run; None before its first step."""
    return None if made is None else asdict(made)


def seconds(milliseconds: int | None) -> int | None:
    """Unix seconds of a time in the database."""
    return None if milliseconds is None else milliseconds // 1000
