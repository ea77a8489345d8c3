"""How long what takes in the life of a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """How long what takes; everything follows from the lease, in seconds.

    A runner renews its lease ``heartbeat`` apart; a job whose attempt was lost
    is tried again after ``retry``, doubled each time; one that makes no
    progress for ``stall`` is failed; a runner is asked to stop for ``grace``
    before it is made to.
    """

    lease: float = 60.0

    @property
    def heartbeat(self) -> float:
        return self.lease / 6

    @property
    def retry(self) -> float:
        return self.lease / 12

    @property
    def stall(self) -> float:
        return self.lease * 10

    @property
    def grace(self) -> float:
        return self.lease / 2
