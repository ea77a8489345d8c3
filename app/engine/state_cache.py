"""A cache from prefix to the network's state after reading it; exact, bounded in bytes.

The state of a recurrent network is one small array, so a prefix cache is a dictionary.
Its keys are the network (artifact and precision) and the exact prefix as a 128-bit keyed
hash. So entries need no copy of the text, and nobody outside can make two prefixes
collide, because the hash key is drawn at start.

Takes and gives numpy arrays. Only ticks use it, one at a time (``Engine._ticking``), so it
has no lock. Knows
nothing of the meaning of a state.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_OVERHEAD: Final = 512
"""Bytes counted per entry for its key and bookkeeping, in addition to its state."""

_SLOTS: Final = 1 << 20
"""Counters per half of a name. Entries rarely share both, so lookups skip most lengths."""

# The increment and the two multipliers of splitmix64 (Steele, Lea and Flood 2014).
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX2: Final = np.uint64(0x94D049BB133111EB)


@njit(nogil=True, cache=True)
def prefix_hashes(ids: Any, key: Any) -> Any:
    """Two 64-bit hashes [n, 2] of every prefix ids[:1], ids[:2] … ids[:n].

    A chain of splitmix64 finalisers, started from a secret ``key`` [2].
    """
    hashes = np.empty((len(ids), 2), dtype=np.uint64)
    for half in range(2):
        state = key[half]
        for place in range(len(ids)):
            state = (state ^ np.uint64(ids[place])) + _GOLDEN * np.uint64(half + 1)
            state = (state ^ (state >> np.uint64(30))) * _MIX1
            state = (state ^ (state >> np.uint64(27))) * _MIX2
            state = state ^ (state >> np.uint64(31))
            hashes[place, half] = state
    return hashes


@njit(nogil=True, cache=True)
def longest_candidate(prefixes: Any, counts: Any, most: int) -> int:
    """The largest length <= ``most`` whose name may be in the cache; 0 if there is none."""
    mask = np.uint64(counts.shape[1] - 1)
    for length in range(most, 0, -1):
        if counts[0, prefixes[length - 1, 0] & mask] and counts[1, prefixes[length - 1, 1] & mask]:
            return length
    return 0


class Hit(NamedTuple):
    """The state after reading the first ``length`` symbols."""

    length: int
    state: NDArray[Any]


class StateCache:
    """States within ``limit_bytes``; the least recently used are dropped first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.queries = 0
        self.hits = 0
        self._key = np.array([secrets.randbits(64), secrets.randbits(64)], dtype=np.uint64)
        self._states: OrderedDict[tuple[Hashable, int, int, int], NDArray[Any]] = OrderedDict()
        # The number of entries in each slot, by the first and by the second half of their names.
        self._counts = np.zeros((2, _SLOTS), dtype=np.int32)

    def __len__(self) -> int:
        return len(self._states)

    def prefixes(self, ids: NDArray[np.int32]) -> NDArray[np.uint64]:
        """The names [n, 2] of all prefixes of ``ids``."""
        hashes: NDArray[np.uint64] = prefix_hashes(ids, self._key)
        return hashes

    def longest(self, network: Hashable, prefixes: NDArray[np.uint64]) -> Hit | None:
        """The state after the longest known prefix; the caller must not change it."""
        self.queries += 1
        length = len(prefixes)
        while length := longest_candidate(prefixes, self._counts, length):
            first, second = prefixes[length - 1].tolist()
            key = (network, length, first, second)
            state = self._states.get(key)
            if state is not None:
                self._states.move_to_end(key)
                self.hits += 1
                return Hit(length, state)
            length -= 1
        return None

    def put(
        self, network: Hashable, prefixes: NDArray[np.uint64], length: int, state: NDArray[Any]
    ) -> None:
        """Store a copy of the state after exactly the first ``length`` symbols."""
        size = state.nbytes + _OVERHEAD
        if length == 0 or size > self.limit_bytes:
            return
        first, second = prefixes[length - 1].tolist()
        key = (network, length, first, second)
        if key in self._states:
            self._states.move_to_end(key)
            return
        while self.bytes + size > self.limit_bytes:
            self._drop(next(iter(self._states)))
        self._states[key] = state.copy()
        self._count(key, 1)
        self.bytes += size

    def forget(self, network: Hashable) -> None:
        """Drop every state of one network."""
        for key in [key for key in self._states if key[0] == network]:
            self._drop(key)

    def _drop(self, key: tuple[Hashable, int, int, int]) -> None:
        self.bytes -= self._states.pop(key).nbytes + _OVERHEAD
        self._count(key, -1)

    def _count(self, key: tuple[Hashable, int, int, int], change: int) -> None:
        for half, name in enumerate(key[2:]):
            self._counts[half, name & (_SLOTS - 1)] += change
