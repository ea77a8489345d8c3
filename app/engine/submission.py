"""A request while it waits and while it is served: its sequences, in order.

Equal prompts are read once: the first sequence of each distinct prompt (the leader) reads
it, the others start from a copy of the leader's state. ``cancelled`` and what admits
sequences are used under the engine's lock, the rest by ticks, one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..charlm.decoder import Decoder
from ..charlm.vocabulary import BOUNDARY
from .piece import Piece
from .sequence import Request, Sequence
from .stream import MOST_UNREAD

_LEAST_STEPS: Final = 8


class Network(Protocol):
    """What the engine needs of a loaded network: a name for its states, and its weights."""

    @property
    def key(self) -> Hashable:
        """Artifact and precision: equal for two networks only if both give the same bits."""

    @property
    def decoder(self) -> Decoder: ...


class Sink(Protocol):
    """The receiver of pieces; the engine's thread calls it, so it must return at once."""

    @property
    def full(self) -> bool:
        """Whether so much is unread that the request should pause."""

    def push(self, piece: Piece) -> None: ...

    def fail(self, error: Exception) -> None:
        """Called when no more pieces will come, because of ``error``."""


@dataclass(frozen=True, eq=False)
class Admitted:
    """A sequence with its submission and group; ``leads`` is true for a group's leader."""

    sequence: Sequence
    submission: Submission
    group: Group
    leads: bool


class Group:
    """The sequences of one distinct prompt: the first reads it, the others follow."""

    def __init__(self, prompt: NDArray[np.int32]) -> None:
        self.prompt = prompt
        self.indices: deque[int] = deque()
        self.state: NDArray[Any] | None = None
        self.seen = 0
        self.read: Piece | None = None


class Submission:
    """A request, its sink, and the sequences that are not admitted yet."""

    def __init__(
        self, request: Request, network: Network, sink: Sink, deadline: float | None, now: float
    ) -> None:
        self.request = request
        self.network = network
        self.sink = sink
        self.deadline = deadline
        self.submitted = now
        self.cancelled = False
        self.paused_at: float | None = None
        """Since when the request pauses because its reader is behind."""
        self.spoke = False
        self.last_piece: dict[int, float] = {}
        """When each sequence last had a piece with symbols, for the metrics."""
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
    def most_steps(self) -> int:
        """How many symbols each running sequence may draw in one tick, with its alternatives.

        Only after a tick is it seen that the reader is behind.
        """
        numbers = max(1, self.running) * (1 + self.request.top)
        return max(_LEAST_STEPS, MOST_UNREAD // numbers)

    @property
    def ready(self) -> bool:
        return self.paused_at is None and bool(self._leaders or self._followers)

    def next_sequence(self) -> Admitted:
        """The next sequence to admit; call it only while ``ready``."""
        following = bool(self._followers)
        group = self._followers[0] if following else self._leaders.popleft()
        sequence = Sequence(self.request, group.prompt, group.indices.popleft())
        if following and not group.indices:
            self._followers.popleft()
        self.running += 1
        return Admitted(sequence, self, group, leads=not following)

    def opened(self, group: Group) -> None:
        """Record that the leader of ``group`` has read the prompt."""
        if group.indices:
            self._followers.append(group)

    def note_reader(self, now: float) -> None:
        """Pause while the reader is behind."""
        if not self.sink.full:
            self.paused_at = None
        elif self.paused_at is None:
            self.paused_at = now

    def finished(self) -> None:
        """Record that a running sequence has ended."""
        self.running -= 1
        self.left -= 1
