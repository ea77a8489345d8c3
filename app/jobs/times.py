"""The durations in the life of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_COMING_UP: Final = 60.0
"""However short leases are: a slow or busy machine needs so long to start a process."""


@dataclass(frozen=True)
class Times:
    """Durations in seconds; all follow from the lease.

    A runner that was just started has ``first_lease`` to say its first word: it
    imports what it needs before. From then on it renews its lease ``heartbeat``
    apart; a job whose attempt was lost is tried again after ``retry``, doubled
    each time; one that makes no progress for ``stall`` is failed; a runner is
    asked to stop for ``grace`` before it is made to.
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
