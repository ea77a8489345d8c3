"""Decide what runs next: a bounded queue, free rows, and turns shared by time.

Plain Python, no torch, no numpy. Requests take turns at the door, a sequence
each, so that one with a thousand records does not keep the others out. Models
take turns by the time they have used (start-time fair queuing, Goyal, Vin and
Cheng 1996): the one that used least goes next, and one that was idle has saved
up nothing.

Knows nothing of ids, states or threads; the engine holds its lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import Overloaded, TooLarge

_LEAST_RETRY_SECONDS: Final = 0.5
_MOST_RETRY_SECONDS: Final = 60.0


class Waiting(Protocol):
    """A waiting request: sequences that can be admitted one by one."""

    @property
    def symbols(self) -> int: ...

    @property
    def unadmitted(self) -> int:
        """How many sequences are still to be admitted."""

    @property
    def ready(self) -> bool:
        """Whether a sequence could be admitted now."""


@dataclass(frozen=True)
class Limits:
    """What may run, what may wait: rows, requests, symbols."""

    rows: int = 256
    waiting_requests: int = 512
    waiting_symbols: int = 50_000_000


class Scheduler:
    """Admission and turns; rows are counted here, not kept."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.waiting_symbols = 0
        self._door: deque[Waiting] = deque()
        self._used: dict[Hashable, float] = {}
        self._symbols_a_second = 0.0

    @property
    def waiting_requests(self) -> int:
        return len(self._door)

    def check(self, symbols: int) -> None:
        """Whether a request of so many symbols may enter.

        Raises Overloaded when the waiting room is full, with an estimate of when
        to come back; TooLarge for what would not fit into an empty one.
        """
        limits = self.limits
        if symbols > limits.waiting_symbols:
            raise TooLarge(
                f"the request asks for up to {symbols:,} characters; "
                f"the server takes {limits.waiting_symbols:,} at once. Ask for less in one request."
            )
        if self.running + sum(each.unadmitted for each in self._door) < limits.rows:
            return  # there will be a row for it at the next tick: it will not wait at all
        if len(self._door) >= limits.waiting_requests or (
            self.waiting_symbols + symbols > limits.waiting_symbols
        ):
            raise Overloaded(
                "the server is full; try again later.", retry_after_seconds=self.retry_after()
            )

    def enter(self, request: Waiting) -> None:
        """Queue a request that has passed ``check``."""
        self._door.append(request)
        self.waiting_symbols += request.symbols

    def retry_after(self) -> float:
        """Seconds until half of the queue should have been served."""
        rate = self._symbols_a_second
        seconds = self.waiting_symbols / rate / 2 if rate else _LEAST_RETRY_SECONDS
        return min(max(seconds, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)

    def next_request(self) -> Waiting | None:
        """The request to admit a sequence of now, if a row is free; it goes to the back."""
        if self.running >= self.limits.rows:
            return None
        for _ in range(len(self._door)):
            request = self._door[0]
            self._door.rotate(-1)
            if request.ready:
                return request
        return None

    def leave(self, request: Waiting) -> None:
        """The request has nothing more to admit, or was abandoned."""
        if request in self._door:
            self._door.remove(request)
            self.waiting_symbols -= request.symbols

    def turn(self, busy: Iterable[Hashable]) -> Hashable:
        """Whose turn it is among the busy models (at least one)."""
        names = list(busy)
        known = [self._used[name] for name in names if name in self._used]
        start = min(known, default=0.0)
        self._used = {name: self._used.get(name, start) for name in names}
        return min(names, key=lambda name: self._used[name])

    def used(self, name: Hashable, seconds: float, symbols: int) -> None:
        """Record the seconds and symbols of a turn."""
        self._used[name] += seconds
        if symbols and seconds > 0:
            rate, before = symbols / seconds, self._symbols_a_second
            self._symbols_a_second = rate if not before else before + 0.05 * (rate - before)
