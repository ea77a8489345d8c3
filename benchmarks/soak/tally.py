"""What every client saw, counted: one count for each workload, status and code."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 200  # moments kept of each kind; the counts are complete

REFUSED: Final = "refused"  # nobody listens
CUT: Final = "cut"  # an answer began and did not end
RESET: Final = "reset"  # the connection ended before an answer began
TIMEOUT: Final = "timeout"


@dataclass
class Tally:
    """Counts by (workload, status, code), and when each transport failure was seen.

    The status of a failure without an answer is one of the four words above, of an error
    within a stream ``event`` and within NDJSON ``line``.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    moments: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def answer(self, workload: str, status: int | str, code: str = "") -> None:
        """Count one answer or one error within an answer."""
        self.counts[workload, str(status), code] += 1

    def failure(self, workload: str, kind: str) -> None:
        """Count a failure of the transport, with its moment on the monotonic clock."""
        self.counts[workload, kind, ""] += 1
        seen = self.moments.setdefault((workload, kind), [])
        if len(seen) < _KEPT:
            seen.append(time.monotonic())

    @property
    def total(self) -> int:
        return self.counts.total()
