"""The rows of one network: catch up with prompts, then draw, one slice of time per turn.

There is no separate prefill and decode: every sequence stores how many of its symbols the
network has seen, and every turn makes it catch up. The decoder gives a row the same bits
whatever the other rows and the chunks are. So no decision here (which rows share a call,
how long a chunk is, whether a state came from the cache) can change the result of a
sequence.

Takes admitted sequences, gives pieces. Knows nothing of threads, clients or other
networks. Only one engine thread at a time calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..charlm.decoder import Row, bias_row
from ..charlm.workers import ALONE, Workers
from .piece import FinishReason, Piece, Tops, floats, ints
from .sequence import Sequence
from .state_cache import StateCache
from .step_times import StepTimes
from .submission import Admitted, Network, Submission

STRIDE: Final = 256
"""Symbols between two states of a long prompt in the cache."""

_PROMPT_SHARE: Final = 0.75  # of a turn, if any prompt is behind
_SCORE_SHARE: Final = 0.5  # of a turn, if only records are behind
_LEAST_GROWTH: Final = 4  # rows

Emit = Callable[[Admitted, Piece], None]
Flush = Callable[[], None]


class Lane:
    """All running sequences of one network."""

    def __init__(
        self,
        network: Network,
        cache: StateCache,
        clock: Callable[[], float],
        most_rows: int,
        workers: Workers = ALONE,
    ) -> None:
        self.network = network
        self.running: list[Admitted] = []
        self._decoder = network.decoder
        self._cache = cache
        self._clock = clock
        self._most_rows = most_rows
        self._workers = workers
        self._state_BLS = self._decoder.initial_state(0)
        self._free: list[int] = []
        self._prefixes: dict[int, NDArray[np.uint64]] = {}
        self._prompt_times, self._score_times = StepTimes(), StepTimes()
        self._draw_times = StepTimes()

    @property
    def moving(self) -> list[Admitted]:
        """The running sequences that do not pause."""
        return [each for each in self.running if each.submission.paused_at is None]

    @property
    def nbytes(self) -> int:
        """Bytes of the states of all rows."""
        return int(self._state_BLS.nbytes)

    def admit(self, admitted: Admitted) -> None:
        """Give a sequence a row, starting from the longest known prefix."""
        sequence, group = admitted.sequence, admitted.group
        prefixes, state = None, group.state
        if not admitted.leads:
            sequence.seen = sequence.cached = group.seen
        elif not sequence.request.scored:
            prefixes = self._cache.prefixes(sequence.prompt)
            hit = self._cache.longest(self.network.key, prefixes[: sequence.goal])
            if hit is not None:
                sequence.seen = sequence.cached = hit.length
                state = hit.state
        if not self._free:
            self._grow()
        # Everything that can fail is done: from here on the row is taken.
        sequence.slot = self._free.pop()
        self._state_BLS[sequence.slot] = 0 if state is None else state
        if prefixes is not None:
            self._prefixes[sequence.slot] = prefixes
        self.running.append(admitted)

    def turn(self, seconds: float, emit: Emit, flush: Flush = lambda: None) -> int:
        """Advance for about ``seconds``; return how many symbols were read or drawn.

        Reading gets three quarters of the time if any prompt is behind, half of it if only
        scored records are; drawing gets the rest. ``flush`` is called when pieces passed to
        ``emit`` should not wait.
        """
        behind = {e.sequence.request.scored for e in self.moving if e.sequence.behind}
        share = 0.0 if not behind else _PROMPT_SHARE if False in behind else _SCORE_SHARE
        advanced = self._catch_up(seconds * share, behind, emit)
        return advanced + self._write(seconds * (1 - share), emit, flush)

    def drop(self, admitted: Admitted) -> None:
        """Free the row of a sequence that ended or was abandoned."""
        self.running.remove(admitted)
        self._free.append(admitted.sequence.slot)
        self._prefixes.pop(admitted.sequence.slot, None)

    def drop_all(self, submission: Submission) -> int:
        """Free every row of a request; return their number."""
        dropped = [each for each in self.running if each.submission is submission]
        for admitted in dropped:
            self.drop(admitted)
        return len(dropped)

    def _grow(self) -> None:
        rows = len(self._state_BLS)
        more = min(max(_LEAST_GROWTH, rows), self._most_rows - rows)
        assert more > 0, "the scheduler admits no more sequences than there are rows"
        fresh = self._decoder.initial_state(more)
        self._state_BLS = np.concatenate((self._state_BLS, fresh))
        self._free.extend(range(rows, rows + more))

    # -- reading

    def _catch_up(self, seconds: float, kinds: set[bool], emit: Emit) -> int:
        """Read prompts and records, each kind for an equal share of the time."""
        return sum(self._catch_up_kind(kind, seconds / len(kinds), emit) for kind in kinds)

    def _catch_up_kind(self, scored: bool, seconds: float, emit: Emit) -> int:
        """Read in chunks, at least one, until the time is used."""
        until, advanced = self._clock() + seconds, 0
        while True:
            behind = [
                each
                for each in self.moving
                if each.sequence.behind and each.sequence.request.scored == scored
            ]
            left = until - self._clock()
            if not behind or (advanced and left <= 0):
                return advanced
            advanced += self._read(behind, left, emit, scored=scored)

    def _read(self, behind: list[Admitted], seconds: float, emit: Emit, *, scored: bool) -> int:
        times = self._score_times if scored else self._prompt_times
        steps = times.steps(len(behind), seconds)
        sequences = [each.sequence for each in behind]
        ends = [self._chunk_end(each, steps) for each in behind]
        start = self._clock()
        reading = self._decoder.read(
            [s.prompt[s.seen : end] for s, end in zip(sequences, ends, strict=True)],
            self._state_BLS,
            [s.slot for s in sequences],
            [s.targets(s.seen, end) for s, end in zip(sequences, ends, strict=True)]
            if scored
            else None,
            top=max(s.request.top for s in sequences) if scored else 0,
            workers=self._workers,
        )
        longest = max(end - s.seen for s, end in zip(sequences, ends, strict=True))
        times.record(len(behind), longest, self._clock() - start)
        total = 0
        for row, (admitted, end) in enumerate(zip(behind, ends, strict=True)):
            count = end - admitted.sequence.seen
            total += count
            if scored:
                part = [array[row, :count] for array in reading]
                self._emit_read(admitted, part, emit)
            self._seen(admitted, end)
        return total

    def _chunk_end(self, admitted: Admitted, steps: int) -> int:
        sequence = admitted.sequence
        end = min(sequence.goal, sequence.seen + steps)
        if sequence.request.scored:
            return end
        return min(end, (sequence.seen // STRIDE + 1) * STRIDE)

    def _emit_read(self, admitted: Admitted, part: list[NDArray[Any]], emit: Emit) -> None:
        sequence, group = admitted.sequence, admitted.group
        logprobs, ranks, top_ids, top_logprobs = part
        piece = Piece(
            sequence.index,
            read_logprobs=floats(logprobs.tolist()),
            read_ranks=ints(ranks.tolist()),
            read_tops=Tops.of_arrays(top_ids, top_logprobs, sequence.request.top),
        )
        if group.indices:  # other sequences need the same
            group.read = group.read or Piece(sequence.index)
            group.read.join(piece)
        emit(admitted, piece)

    def _seen(self, admitted: Admitted, end: int) -> None:
        sequence = admitted.sequence
        sequence.seen = end
        sequence.check()
        prefixes = self._prefixes.get(sequence.slot)
        if prefixes is not None and (end % STRIDE == 0 or not sequence.behind):
            self._cache.put(self.network.key, prefixes, end, self._state_BLS[sequence.slot])

    # -- writing

    def _write(self, seconds: float, emit: Emit, flush: Flush) -> int:
        """Draw on every row that has caught up.

        New texts draw their first symbol before all rows draw for the rest of the time.
        """
        for each in [each for each in self.moving if not each.sequence.behind]:
            self._open(each, emit)
        drawn = 0
        if fresh := [each for each in self._ready() if not each.sequence.written]:
            drawn = self._draw(fresh, 1, emit)
            flush()
        if ready := self._ready():
            drawn += self._draw(ready, self._draw_times.steps(len(ready), seconds), emit)
        return drawn

    def _ready(self) -> list[Admitted]:
        """The sequences that draw: they have caught up and may write."""
        return [
            each
            for each in self.moving
            if not each.sequence.behind and each.sequence.request.max_symbols
        ]

    def _draw(self, ready: list[Admitted], most: int, emit: Emit) -> int:
        rows = [self._row(each) for each in ready]
        steps = [
            min(
                most,
                each.submission.most_steps,
                each.sequence.request.max_symbols - len(each.sequence.written),
            )
            for each in ready
        ]
        top = max(each.sequence.request.top for each in ready)
        start = self._clock()
        writing = self._decoder.write(rows, self._state_BLS, steps, top=top, workers=self._workers)
        self._draw_times.record(len(ready), max(steps), self._clock() - start)
        counts = (writing.ids_BQ >= 0).sum(axis=1).tolist()
        ids, logprobs = writing.ids_BQ.tolist(), writing.logprobs_BQ.tolist()
        for row, (admitted, count) in enumerate(zip(ready, counts, strict=True)):
            tops = Tops.of_arrays(
                writing.top_ids_BQN[row, :count],
                writing.top_logprobs_BQN[row, :count],
                admitted.sequence.request.top,
            )
            self._accept(admitted, ids[row][:count], logprobs[row][:count], tops, emit)
        return sum(counts)

    def _open(self, admitted: Admitted, emit: Emit) -> None:
        """Report once that a sequence has caught up, and end it if it writes nothing."""
        sequence, group = admitted.sequence, admitted.group
        if sequence.opened:
            return
        sequence.opened = True
        if admitted.leads:
            if group.indices:
                group.seen = sequence.seen
                group.state = self._state_BLS[sequence.slot].copy()
            admitted.submission.opened(group)
        elif group.read is not None:
            emit(admitted, Piece(sequence.index, cached=sequence.spared).with_reading(group.read))
        if not sequence.request.max_symbols:
            finish = FinishReason.LENGTH
            emit(admitted, Piece(sequence.index, finish=finish, cached=sequence.spared))

    def _row(self, admitted: Admitted) -> Row:
        sequence = admitted.sequence
        if sequence.row is None:
            sampling, symbols = sequence.request.sampling, self._decoder.symbols
            sequence.row = Row(
                slot=sequence.slot,
                current=int(sequence.prompt[-1]),
                sampling=sampling,
                counts=np.zeros(symbols if sampling.counts_matter else 0, dtype=np.int32),
                biases=bias_row(sampling, symbols),
                choice=sequence.index,
                boundary=sequence.request.boundary,
            )
        return sequence.row

    def _accept(
        self,
        admitted: Admitted,
        ids: list[int],
        logprobs: list[float],
        tops: Tops,
        emit: Emit,
    ) -> None:
        sequence = admitted.sequence
        first = not sequence.written
        piece = sequence.accept(ids, logprobs, tops)
        finished = piece is not None and piece.finish is not None
        if finished or (first and sequence.slot in self._prefixes):
            self._keep(sequence)
        if piece is not None:
            emit(admitted, piece)

    def _keep(self, sequence: Sequence) -> None:
        """Cache the state at a text's end, or at its prompt's end after the first symbol."""
        ids = sequence.ids_read()
        if ids is None:
            return
        known = self._prefixes.get(sequence.slot)  # the names of the prompt's prefixes
        if known is None or len(known) < len(ids):
            known = self._cache.prefixes(ids)
        self._cache.put(self.network.key, known, len(ids), self._state_BLS[sequence.slot])
