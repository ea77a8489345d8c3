"""How many steps fit into a slice of time, estimated from earlier steps.

Plain Python. A step of B rows costs about as much as the last step of a similar number
of rows; numbers of rows are grouped by powers of two.
"""

from __future__ import annotations

from typing import Final

_FIRST_GUESS_SECONDS: Final = 0.0005
_LEAST_SECONDS: Final = 1e-6
_MEMORY: Final = 0.75  # weight of the earlier mean
_MOST_SLOWER: Final = 3.0  # a new value counts as at most this many times the mean


class StepTimes:
    """A moving mean of seconds per step, by number of rows."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def steps(self, rows: int, seconds: float) -> int:
        """About how many steps of ``rows`` rows fit into ``seconds``; at least 1."""
        return max(1, round(seconds / self._expected(rows)))

    def record(self, rows: int, steps: int, seconds: float) -> None:
        """Record that ``steps`` steps of ``rows`` rows took ``seconds``."""
        size, cost = rows.bit_length(), seconds / steps
        before = self._seconds.get(size)
        if steps == 1 and before is not None and cost > before:
            return  # mostly the overhead of the call
        # A preempted thread measures one slow value: limit its weight.
        kept = 0.0 if before is None else _MEMORY
        known = before or cost
        self._seconds[size] = kept * known + (1 - kept) * min(cost, _MOST_SLOWER * known)

    def _expected(self, rows: int) -> float:
        if not self._seconds:
            return _FIRST_GUESS_SECONDS
        size = rows.bit_length()
        nearest = min(self._seconds, key=lambda known: abs(known - size))
        # More rows cost at most proportionally more; fewer may cost the same.
        return max(self._seconds[nearest] * 2.0 ** max(0, size - nearest), _LEAST_SECONDS)
