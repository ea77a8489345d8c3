"""How many connections are open, and which of them go when there are too many.

A connection is *silent* until its first whole head has arrived, then *busy* while a request
is answered and *idle* between two. Silent ones are bounded for each address (of IPv6, each
/64 network); a proxy, which is one address, does not suffer, because its connections speak at
once. When all places are taken, a newcomer gets that of a silent or an idle one, or of one
whose client has begun a body and sends no more of it. When all others are busy, it is answered
that the server is full: a few places are kept for such answers and for health checks.

Used on one event loop. Knows no HTTP.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final, Protocol

try:
    import resource
except ImportError:  # not on Windows, which has no such limit
    resource = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

MOST: Final = 4096
"""Connections at once."""

MOST_SILENT: Final = 256
"""Silent connections of one address, beyond those of the last second."""

_BODY_SECONDS: Final = 10.0  # a body that stands still for so long may lose its place
_LOG_SECONDS: Final = 60.0
_SILENT_SECONDS: Final = 1.0  # connections younger than this may just be about to speak
_KEPT_PLACES: Final = 64
_KEPT_FILES: Final = 224  # for listeners, the database, models, texts, the interpreter
_LEAST: Final = 16


class Guest(Protocol):
    """An open connection."""

    @property
    def address(self) -> str: ...

    @property
    def waiting_since(self) -> float | None:
        """When the client last sent something of the body that is awaited; None if none is."""

    def drop(self) -> None:
        """Close it at once."""


def descriptors() -> int:
    """How many files and sockets this process may open, after asking for as many as it may."""
    if resource is None:
        return MOST + _KEPT_PLACES + _KEPT_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses an unlimited number
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def places(descriptors: int) -> tuple[int, int]:
    """The connections at once, and how many may be accepted before any can be turned away."""
    left = descriptors - _KEPT_FILES - _KEPT_PLACES
    most = max(_LEAST, min(MOST, left * 3 // 4))
    return most, max(_LEAST, min(2048, left - most))


class Door:
    """The open connections of a server, at most ``most`` and a few kept places."""

    def __init__(
        self,
        most: int = MOST,
        most_silent: int = MOST_SILENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_silent = most_silent
        self._clock = clock
        self._silent: dict[str, OrderedDict[Guest, float]] = {}  # oldest first, with its start
        self._idle: OrderedDict[Guest, None] = OrderedDict()  # longest idle first
        self._inside: set[Guest] = set()
        self._search_at = -math.inf
        self._dropped = self._refused = 0
        self._logged = -math.inf

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, guest: Guest) -> bool:
        """Let a new connection in; others may have to go. False if all others are busy.

        It may then only be told so. Beyond the kept places it is dropped.
        """
        self._inside.add(guest)
        mine = self._silent.setdefault(_group(guest.address), OrderedDict())
        mine[guest] = self._clock()
        oldest, since = next(iter(mine.items()))
        if len(mine) > self._most_silent and self._clock() - since > _SILENT_SECONDS:
            self._drop(oldest)
        if len(self._inside) <= self._most:
            return True
        if (other := self._one_that_can_go(guest)) is not None:
            self._drop(other)
            return len(self._inside) <= self._most
        self._refused += 1
        self._say()
        if len(self._inside) > self._most + _KEPT_PLACES:
            self._drop(guest)
        return False

    def spoke(self, guest: Guest) -> None:
        """A whole head has arrived: the connection is busy."""
        self._hush(guest)
        self._idle.pop(guest, None)

    def rests(self, guest: Guest) -> None:
        """The answer is sent; the connection waits for another request."""
        if guest in self._inside:
            self._idle[guest] = None

    def leave(self, guest: Guest) -> None:
        """The connection is closed."""
        self._inside.discard(guest)
        self._idle.pop(guest, None)
        self._hush(guest)

    def _one_that_can_go(self, newcomer: Guest) -> Guest | None:
        """The oldest silent connection of the address with the most, else the longest idle one.

        Those that have just come may be about to speak: they go last.
        """
        crowd = max(self._silent.values(), key=len, default=OrderedDict())
        oldest = next((each for each in crowd if each is not newcomer), None)
        if oldest is not None and self._clock() - crowd[oldest] > _SILENT_SECONDS:
            return oldest
        return next(iter(self._idle), None) or self._one_that_stands_still() or oldest

    def _one_that_stands_still(self) -> Guest | None:
        """The connection whose body has been awaited for the longest time.

        A search goes through all of them; after one in vain there is none for a second.
        """
        if self._clock() < self._search_at:
            return None
        waiting = [(at, each) for each in self._inside if (at := each.waiting_since) is not None]
        since, guest = min(waiting, key=lambda each: each[0], default=(math.inf, None))
        if self._clock() - since >= _BODY_SECONDS:
            return guest
        self._search_at = self._clock() + _SILENT_SECONDS
        return None

    def _drop(self, guest: Guest) -> None:
        self._dropped += 1
        self._say()
        self.leave(guest)
        guest.drop()

    def _hush(self, guest: Guest) -> None:
        """Count it among the silent ones no more."""
        group = _group(guest.address)
        mine = self._silent.get(group)
        if mine is not None:
            mine.pop(guest, None)
            if not mine:
                del self._silent[group]

    def _say(self) -> None:
        """Log what was turned away, at most once a minute."""
        now = self._clock()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            _log.warning(
                "too many connections: %d open, %d of them idle; since the start %d were dropped "
                "and %d refused (said at most once a minute)",
                len(self._inside), len(self._idle), self._dropped, self._refused,
            )  # fmt: skip


@lru_cache(1024)
def _group(address: str) -> str:
    """The address; of IPv6 the first 64 bits, as one client may choose the rest."""
    if ":" not in address:
        return address
    try:
        known = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(known.ipv4_mapped or known.packed[:8].hex())
