"""The durations in the life of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_COMING_UP: Final = 60.0
"""Even if leases are shorter: a slow or busy machine needs this long to start a process."""


@dataclass(frozen=True)
class Times:
    """Durations in seconds; all follow from the lease.

    A new runner must report within ``first_lease``, which includes its imports. After that it
    renews its lease every ``heartbeat``. A job whose attempt was lost is tried again after
    ``retry``, doubled each time. A job without progress for ``stall`` fails. A runner is first
    asked to stop; after ``grace`` it gets SIGTERM, after twice that SIGKILL.
    """

    lease: float = 60.0

    @property
    def first_lease(self) -> float:
        return max(self.lease, _COMING_UP)

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
