"""How many steps fit into a slice of time, estimated from earlier steps.

Plain Python. A step of B rows costs about the same as the last one of nearly
as many rows; rows are counted in powers of two.
"""

from __future__ import annotations

from typing import Final

_FIRST_GUESS_SECONDS: Final = 0.0005
_LEAST_SECONDS: Final = 1e-6
_MEMORY: Final = 0.75
_MOST_SLOWER: Final = 3.0


class StepTimes:
    """Seconds per step by number of rows, as a moving mean."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def steps(self, rows: int, seconds: float) -> int:
        """About as many steps of ``rows`` rows as fit into ``seconds``; at least 1."""
        return max(1, round(seconds / self._expected(rows)))

    def record(self, rows: int, steps: int, seconds: float) -> None:
        """Record that ``steps`` steps of ``rows`` rows took ``seconds``."""
        size, cost = rows.bit_length(), seconds / steps
        before = self._seconds.get(size)
        if steps == 1 and before is not None and cost > before:
            return  # mostly the cost of the call
        # A thread that was preempted looks slow once: one such value counts little.
        kept = 0.0 if before is None else _MEMORY
        known = before or cost
        self._seconds[size] = kept * known + (1 - kept) * min(cost, _MOST_SLOWER * known)

    def _expected(self, rows: int) -> float:
        if not self._seconds:
            return _FIRST_GUESS_SECONDS
        size = rows.bit_length()
        nearest = min(self._seconds, key=lambda known: abs(known - size))
        # More rows cost at most in proportion; fewer may cost the same.
        return max(self._seconds[nearest] * 2.0 ** max(0, size - nearest), _LEAST_SECONDS)
