"""A request at the engine's door and while it is served: its sequences, in order.

Prompts that are equal are read once: the first sequence of each distinct prompt
(the leader) reads it, the others start from a copy of the state it reached.
Used under the engine's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..charlm.decoder import Decoder
from ..charlm.vocabulary import BOUNDARY
from .sequence import Piece, Request, Sequence


class Network(Protocol):
    """What the engine needs of a loaded model: a name for its states and the weights."""

    @property
    def key(self) -> Hashable:
        """Equal for two networks only if both give the same bits: artifact and precision."""

    @property
    def decoder(self) -> Decoder: ...


class Sink(Protocol):
    """Where pieces go; called by the engine's thread and must return at once."""

    def push(self, piece: Piece) -> None: ...

    def fail(self, error: Exception) -> None:
        """No more pieces will come, because of ``error``."""


@dataclass(frozen=True, eq=False)
class Admitted:
    """A sequence and where it belongs."""

    sequence: Sequence
    submission: Submission
    group: Group
    leads: bool


class Group:
    """The sequences of one distinct prompt: the first reads, the others follow."""

    def __init__(self, prompt: NDArray[np.int32]) -> None:
        self.prompt = prompt
        self.indices: deque[int] = deque()
        self.state: NDArray[Any] | None = None
        self.seen = 0
        self.read: Piece | None = None


class Submission:
    """A request, whom it is for, and which of its sequences are still to be admitted."""

    def __init__(
        self, request: Request, network: Network, sink: Sink, deadline: float | None, now: float
    ) -> None:
        self.request = request
        self.network = network
        self.sink = sink
        self.deadline = deadline
        self.submitted = now
        self.cancelled = False
        self.spoke = False
        self.last_piece: dict[int, float] = {}
        """When each sequence last had news, for the metrics."""
        self.running = 0
        self.left = request.sequences
        """Sequences that have not finished."""
        groups: dict[bytes, Group] = {}
        for place, prompt in enumerate(request.prompts):
            ids = np.append(np.int32(BOUNDARY), prompt).astype(np.int32)
            group = groups.setdefault(ids.tobytes(), Group(ids))
            first = place * request.choices
            group.indices.extend(range(first, first + request.choices))
        self._leaders = deque(groups.values())
        self._followers: deque[Group] = deque()

    @property
    def symbols(self) -> int:
        return self.request.symbols

    @property
    def unadmitted(self) -> int:
        return self.left - self.running

    @property
    def ready(self) -> bool:
        return bool(self._leaders or self._followers)

    def next_sequence(self) -> Admitted:
        """The sequence to admit now; only while ``ready``."""
        following = bool(self._followers)
        group = self._followers[0] if following else self._leaders.popleft()
        sequence = Sequence(self.request, group.prompt, group.indices.popleft())
        if following and not group.indices:
            self._followers.popleft()
        self.running += 1
        return Admitted(sequence, self, group, leads=not following)

    def opened(self, group: Group) -> None:
        """The leader of ``group`` has read the prompt."""
        if group.indices:
            self._followers.append(group)

    def finished(self) -> None:
        """One more running sequence has come to its end."""
        self.running -= 1
        self.left -= 1
