"""Divide rows among threads. No row depends on another, so every result stays bit-identical.

Compiled code releases the interpreter lock, so ordinary threads suffice. Takes calls,
runs them in parallel and returns when all are done. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Final

from .kernels.amx import CONFIGURATION, TILE_ROWS

LEAST_ROWS: Final = TILE_ROWS if len(CONFIGURATION) else 4
"""The least rows per thread. Splitting fewer gains little: each thread reads all weights
once per step, and AMX always computes 16 rows."""


class Workers:
    """``threads`` threads, including the caller's; the others start at first use."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def shares(self, rows: int) -> list[tuple[int, int]]:
        """Cut ``rows`` into ranges [start, stop), at most one per thread.

        With ``count`` ranges, range ``part`` is as long as ``rows[part::count]``.
        """
        count = max(1, min(self.threads, rows // LEAST_ROWS))
        sizes = (len(range(part, rows, count)) for part in range(count))
        return list(pairwise(accumulate(sizes, initial=0)))

    def run(self, work: Callable[[int, int], None], shares: Sequence[tuple[int, int]]) -> None:
        """Call ``work(start, stop)`` for every share in parallel; raises what any call raises."""
        first, *others = shares
        if others and self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, "rows")
        futures = [self._pool.submit(work, *share) for share in others] if self._pool else []
        try:
            work(*first)
        finally:
            for future in futures:
                future.result()

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


ALONE: Final = Workers(1)
"""The caller's thread only."""
