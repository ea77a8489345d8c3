"""The state machine of a job: every move there is.

    queued -> starting -> running -> publishing -> succeeded
    queued -> paused                       requested while no attempt runs
    starting | running -> pausing -> paused -> queued
    pausing -> running                     resumed before the pause was complete
    queued | paused -> cancelled           requested while no attempt runs
    starting | running | pausing -> cancelling -> cancelled
    any leased state -> queued             the attempt was lost, and attempts are left
    any leased state -> failed

Pure: each table maps a state to the next one and omits states in which the request is
not allowed. Final states never change; to try again, submit a new job. The database repeats
the set of states in a CHECK, and every move is an UPDATE guarded by the state before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from ..database.job_states import FINAL, LEASED, JobState

__all__ = ["CANCEL", "FINAL", "LEASED", "LOST", "PAUSE", "RESUME", "JobState", "Wish"]

_S = JobState


class Wish(StrEnum):
    """What the user wants a job to do, as its runner reads it."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


CANCEL: Final[Mapping[JobState, JobState]] = {
    _S.QUEUED: _S.CANCELLED,
    _S.PAUSED: _S.CANCELLED,
    _S.STARTING: _S.CANCELLING,
    _S.RUNNING: _S.CANCELLING,
    _S.PAUSING: _S.CANCELLING,
    _S.CANCELLING: _S.CANCELLING,
    _S.CANCELLED: _S.CANCELLED,
}
PAUSE: Final[Mapping[JobState, JobState]] = {
    _S.QUEUED: _S.PAUSED,
    _S.STARTING: _S.PAUSING,
    _S.RUNNING: _S.PAUSING,
    _S.PAUSING: _S.PAUSING,
    _S.PAUSED: _S.PAUSED,
}
RESUME: Final[Mapping[JobState, JobState]] = {
    _S.PAUSED: _S.QUEUED,
    _S.PAUSING: _S.RUNNING,
    _S.QUEUED: _S.QUEUED,
    _S.STARTING: _S.STARTING,
    _S.RUNNING: _S.RUNNING,
    _S.PUBLISHING: _S.PUBLISHING,
}
#: A job's state after its attempt is gone: a requested pause or cancel takes effect.
LOST: Final[Mapping[JobState, JobState]] = {
    _S.STARTING: _S.QUEUED,
    _S.RUNNING: _S.QUEUED,
    _S.PUBLISHING: _S.QUEUED,
    _S.PAUSING: _S.PAUSED,
    _S.CANCELLING: _S.CANCELLED,
}
