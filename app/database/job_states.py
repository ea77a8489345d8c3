"""The states of a job, as the tables store them. Imports no SQLAlchemy."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """The state of a job; the moves between states are in ``app.jobs.states``."""

    QUEUED = "queued"  #: waits for a free slot
    STARTING = "starting"  #: claimed; its training process starts
    RUNNING = "running"  #: trains
    PAUSING = "pausing"  #: writes a checkpoint, then gives the slot back
    PAUSED = "paused"  #: waits to be resumed
    CANCELLING = "cancelling"  #: its training process is being stopped
    PUBLISHING = "publishing"  #: the model version is being written
    SUCCEEDED = "succeeded"  #: its model version exists
    CANCELLED = "cancelled"
    FAILED = "failed"  #: error_code and error say why


FINAL: Final = frozenset({JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED})
LEASED: Final = frozenset(
    {
        JobState.STARTING,
        JobState.RUNNING,
        JobState.PAUSING,
        JobState.CANCELLING,
        JobState.PUBLISHING,
    }
)
