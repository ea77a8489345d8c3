"""A client's request to the engine, and one text while it is served.

A ``Request`` is one call: prompts of ids, the number of choices for each, how to draw and
when to stop. The engine makes a ``Sequence`` for every choice. A sequence stores how many
of its symbols the network has seen. Reading a prompt, scoring a record and writing a
completion are the same operation: catching up with the ids.

Works on ids only. Knows nothing of text, vocabularies, HTTP or threads.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..charlm.decoder import Row
from ..charlm.sampling import Sampling
from ..charlm.vocabulary import BOUNDARY, Ids
from .piece import FinishReason, Piece, Tops, floats, ints


class StopRule:
    """Stop strings as ids; the text ends before the first stop string to be completed.

    If one symbol completes several, the longest counts. Only written symbols are
    searched, never the prompt.
    """

    def __init__(self, stops: Listed[Listed[int]] = ()) -> None:
        # One code point per id, so that Python's own string search does the work.
        self._stops = tuple(_as_text(stop) for stop in stops if len(stop))
        self._longest = max(map(len, self._stops), default=0)

    def __bool__(self) -> bool:
        return bool(self._stops)

    def end(self, written: Listed[int], new_from: int, until: int) -> int | None:
        """The text's end if one of the symbols new_from … until − 1 completes a stop string."""
        first = max(0, new_from - self._longest + 1)
        tail = _as_text(written[first:until])
        found: tuple[int, int] | None = None
        for stop in self._stops:
            place = tail.find(stop, max(0, new_from - len(stop) + 1 - first))
            if place >= 0:
                candidate = (place + len(stop), place)
                found = min(found or candidate, candidate)
        return None if found is None else first + found[1]

    def held_back(self, written: Listed[int]) -> int:
        """How many of the last symbols could be the beginning of a stop string."""
        tail = _as_text(written[max(0, len(written) - self._longest + 1) :])
        for count in range(len(tail), 0, -1):
            if any(stop.startswith(tail[-count:]) for stop in self._stops):
                return count
        return 0


def _as_text(ids: Listed[int]) -> str:
    return "".join(map(chr, ids))


@dataclass(frozen=True, eq=False)
class Request:
    """One call. ``prompts`` hold ids without the boundary that starts every text.

    With ``max_symbols`` 0 nothing is written. ``scored`` gives logprobs and ranks of the
    prompt's own symbols; ``closed`` adds those of a closing boundary (and excludes
    writing). ``boundary`` says whether the boundary may be drawn. ``top`` is the number of
    alternatives given with each logprob. ``timeout_seconds`` counts from submission. The
    sequence of prompt p and choice c has the index p · choices + c, which also selects its
    random numbers: equal prompts in one request give different texts.
    """

    prompts: tuple[Ids, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_symbols: int = 256
    choices: int = 1
    boundary: bool = True
    stop: StopRule = field(default_factory=StopRule)
    scored: bool = False
    closed: bool = False
    top: int = 0
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        assert self.prompts
        assert self.choices >= 1
        assert not (self.closed and self.max_symbols)

    @property
    def symbols(self) -> int:
        """The maximum number of symbols that the network reads for this request."""
        reads = sum(len(prompt) + 1 for prompt in self.prompts)
        return reads + len(self.prompts) * self.choices * self.max_symbols

    @property
    def sequences(self) -> int:
        return len(self.prompts) * self.choices


class Sequence:
    """One text: ``prompt`` (from the boundary on) and the symbols written after it.

    The network has read ``seen`` symbols, ``cached`` of them from a known state. While
    writing, the last symbol is always unread.
    """

    def __init__(self, request: Request, prompt: NDArray[np.int32], index: int) -> None:
        self.request = request
        self.prompt = prompt
        self.index = index
        self._followed = np.append(prompt[1:], np.int32(BOUNDARY)) if request.scored else prompt
        self.cached = 0
        self.seen = 0
        self.emitted = 0
        self.written: list[int] = []
        self._unsent_logprobs = floats()  # from ``emitted`` on
        self._unsent_tops = Tops()
        self.slot = -1
        self.row: Row | None = None
        self.ended: int | None = None
        """How many written symbols belong to the finished text."""
        self.opened = False
        """Whether the end of the prompt was reported."""
        self.goal = len(prompt) if request.closed else len(prompt) - 1
        """How many symbols to read before the first is drawn (or the score is complete)."""

    def check(self) -> None:
        """Assert the invariant of a sequence's position."""
        assert 0 <= self.cached <= self.seen <= len(self.prompt) + len(self.written)

    @property
    def spared(self) -> int:
        """How many of the prompt's own symbols were not read thanks to a known state."""
        return max(0, self.cached - 1)

    @property
    def behind(self) -> bool:
        """Whether the prompt has not been read as far as required."""
        return self.seen < self.goal

    def targets(self, start: int, end: int) -> NDArray[np.int32]:
        """The symbols that follow those at start … end − 1; the boundary follows the last."""
        return self._followed[start:end]

    def ids_read(self) -> NDArray[np.int32] | None:
        """The ids that the network has read; None if it read past the text (at a stop string)."""
        count = self.seen - len(self.prompt)
        if self.ended is not None and count > self.ended:
            return None
        return np.concatenate((self.prompt, np.array(self.written[:count], dtype=np.int32)))

    def accept(self, ids: list[int], logprobs: list[float], tops: Tops) -> Piece | None:
        """Append newly drawn symbols; return the piece to send, if any.

        Symbols that could be the beginning of a stop string are held back.
        """
        request, new_from = self.request, len(self.written)
        self.written += ids
        self._unsent_logprobs.extend(logprobs)
        self._unsent_tops.extend(tops)
        self.seen += len(ids)
        self.check()
        end, finish = len(self.written), None
        if self.written[-1] == BOUNDARY:
            end, finish = end - 1, FinishReason.STOP
        stopped = request.stop.end(self.written, new_from, end) if request.stop else None
        if stopped is not None:
            end, finish = stopped, FinishReason.STOP
        elif finish is None and len(self.written) >= request.max_symbols:
            finish = FinishReason.LENGTH
        if finish is not None:
            self.ended = end
        elif request.stop:
            end -= request.stop.held_back(self.written)
        if finish is None and end == self.emitted:
            return None
        return self._piece(end, finish)

    def _piece(self, end: int, finish: FinishReason | None) -> Piece:
        # Send the boundary with its logprob, so that a record's logprobs are complete;
        # it has no text.
        last = end
        if finish is FinishReason.STOP and self.written[end] == BOUNDARY:
            last = end + 1
        start, self.emitted = self.emitted, end
        piece = Piece(
            self.index,
            ids=ints(self.written[start:last]),
            logprobs=self._unsent_logprobs[: last - start],
            tops=self._unsent_tops[: last - start],
            finish=finish,
            cached=self.spared,
        )
        del self._unsent_logprobs[: last - start]
        self._unsent_tops.drop(last - start)
        return piece
