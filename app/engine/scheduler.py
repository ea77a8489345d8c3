"""Decide what runs next: a bounded queue, free rows, and turns shared by time.

Plain Python, no torch, no numpy. Waiting requests take turns, one sequence each, so that
a request with a thousand records does not keep the others out. Networks take turns by the
time they have used (start-time fair queuing, Goyal, Vin and Cheng 1996): the network that
used the least goes next, and an idle network saves up no time.

Knows nothing of ids and states. Every method is called with ``lock`` held and checks that
it is; ``waiting_requests`` and ``running`` may be read without, each is one number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import Overloaded, TooLarge
from .locks import OwnedLock

_LEAST_RETRY_SECONDS: Final = 0.5
_MOST_RETRY_SECONDS: Final = 60.0
_SMOOTHING: Final = 0.05  # weight of the newest turn in the mean rate


class Waiting(Protocol):
    """A waiting request: sequences that can be admitted one by one."""

    @property
    def symbols(self) -> int: ...

    @property
    def unadmitted(self) -> int:
        """How many sequences are not admitted yet."""

    @property
    def ready(self) -> bool:
        """Whether a sequence could be admitted now."""


@dataclass(frozen=True)
class Limits:
    """Limits of what may run and what may wait: rows, requests, symbols."""

    rows: int = 256
    waiting_requests: int = 512
    waiting_symbols: int = 50_000_000


class Scheduler:
    """Admission and turns; rows are only counted here. ``lock`` guards every attribute."""

    def __init__(self, limits: Limits, lock: OwnedLock) -> None:
        self.limits = limits
        self._lock = lock
        self.running = 0
        self.waiting_symbols = 0
        self._door: deque[Waiting] = deque()
        self._used: dict[Hashable, float] = {}
        self._symbols_a_second = 0.0

    @property
    def waiting_requests(self) -> int:
        return len(self._door)

    @property
    def crowded(self) -> bool:
        """Whether a request that does not pause itself waits for rows."""
        self._lock.check()
        return any(each.ready for each in self._door)

    def check(self, symbols: int) -> None:
        """Check that a request of ``symbols`` symbols may enter.

        Raises Overloaded if the queue is full, with an estimate of when to retry; TooLarge
        if the request would not fit into an empty queue.
        """
        self._lock.check()
        limits = self.limits
        if symbols > limits.waiting_symbols:
            raise TooLarge(
                f"the request may read and write up to {symbols:,} characters, but the limit is "
                f"{limits.waiting_symbols:,}. Ask for less in one request."
            )
        if self.running + sum(each.unadmitted for each in self._door) < limits.rows:
            return  # a row is free at the next tick: the request does not wait
        if len(self._door) >= limits.waiting_requests or (
            self.waiting_symbols + symbols > limits.waiting_symbols
        ):
            raise Overloaded(
                "the server is full; try again later.", retry_after_seconds=self.retry_after()
            )

    def enter(self, request: Waiting) -> None:
        """Queue a request that has passed ``check``."""
        self._lock.check()
        self._door.append(request)
        self.waiting_symbols += request.symbols

    def retry_after(self) -> float:
        """Seconds until half of the queue should be served."""
        rate = self._symbols_a_second
        seconds = self.waiting_symbols / rate / 2 if rate else _LEAST_RETRY_SECONDS
        return min(max(seconds, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)

    def next_request(self) -> Waiting | None:
        """The request whose sequence to admit now, if a row is free; it moves to the back."""
        self._lock.check()
        if self.running >= self.limits.rows:
            return None
        for _ in range(len(self._door)):
            request = self._door[0]
            self._door.rotate(-1)
            if request.ready:
                return request
        return None

    def leave(self, request: Waiting) -> None:
        """Remove a request that has nothing more to admit or was abandoned."""
        self._lock.check()
        if request in self._door:
            self._door.remove(request)
            self.waiting_symbols -= request.symbols

    def turn(self, busy: Iterable[Hashable]) -> Hashable:
        """The network whose turn it is among the busy ones (at least one)."""
        self._lock.check()
        names = list(busy)
        known = [self._used[name] for name in names if name in self._used]
        start = min(known, default=0.0)
        self._used = {name: self._used.get(name, start) for name in names}
        return min(names, key=lambda name: self._used[name])

    def used(self, name: Hashable, seconds: float, symbols: int) -> None:
        """Record the seconds and symbols of a turn."""
        self._lock.check()
        self._used[name] += seconds
        if symbols and seconds > 0:
            rate, before = symbols / seconds, self._symbols_a_second
            self._symbols_a_second = rate if not before else before + _SMOOTHING * (rate - before)
