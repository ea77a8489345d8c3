"""Many texts, one thread: continuous batching over recurrent states.

**The central invariant: the same text whatever else is served.** Prompt, parameters and
seed determine a sequence's symbols and logprobs bit for bit, whatever the other rows, the
order of arrival, the size of chunks and the cache hits. It holds because the decoder
gives a row the same bits whatever the other rows are, random numbers depend on (seed,
index, position) only, and nothing here changes either.

Each tick drops requests that are cancelled or late, admits sequences while rows are free,
makes the network whose turn it is catch up with its prompts and draw, and sends pieces.
Tests call ``tick`` directly; ``start`` runs it in a thread. ``submit`` accepts or refuses
a request before allocating anything. While nothing else is served it also does a first
short tick itself, because waking a thread takes longer than a character.

A request whose reader is behind pauses: its rows are kept but do not advance. If others wait
for rows, or for the memory of its network (``press``), it is ended after ``_PAUSE_SECONDS``.

Two locks, never the other way round: ``_ticking`` is held for a whole tick and guards what
ticks alone change (lanes' rows, the state cache); ``_lock`` is held for moments and guards
what callers share with ticks. It says so where each attribute is defined.

Knows nothing of text, files, HTTP or JSON.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from ..charlm.decoder import bias_row
from ..charlm.workers import Workers
from ..errors import Overloaded, TooLate
from .lane import Lane
from .locks import OwnedLock
from .metrics import Metrics
from .piece import Piece
from .scheduler import Limits, Scheduler
from .sequence import Request
from .state_cache import StateCache
from .stream import Abandoned, AsyncStream, BlockingStream, Bridge
from .submission import Admitted, Network, Sink, Submission

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.006
"""The target duration of a tick; a new text waits about as long for its turn."""

_FIRST_TICK_SECONDS = 0.0005
_FIRST_TICK_SEQUENCES = 4
_FIRST_TICK_SYMBOLS = 8192
"""The caller does the first tick of requests up to this size only: it blocks an event loop."""

_ADMISSION_SHARE = 0.5  # of a tick
_RESTART_SECONDS = 5.0  # after which a server that shuts down may be back
_PAUSE_SECONDS = 10.0  # a reader may stay behind for this long while others wait for rows
_PRESS_SECONDS = 2.0  # for so long somebody still wants the memory that was refused
_LOOK_SECONDS = 0.1  # between looks at deadlines while every request pauses


class Engine:
    """Serves requests on any number of networks; safe to call from any thread."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        cache_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
        threads: int = 1,
    ) -> None:
        self.limits = limits or Limits()
        self.cache = StateCache(cache_bytes)
        self.metrics = metrics or Metrics()
        self._clock = clock
        self._workers = Workers(threads)
        self._ticking = OwnedLock()  # one tick at a time, in any thread
        self._all_pause = False  # whether the last tick found nothing to advance
        self._lock = OwnedLock()
        self._wake = threading.Condition(self._lock)  # type: ignore[arg-type]  # it has a lock's methods
        # Guarded by ``_lock``.
        self._scheduler = Scheduler(self.limits, self._lock)
        self._open: dict[Submission, None] = {}
        self._forgotten: list[Hashable] = []
        self._bridges: WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = WeakKeyDictionary()
        self._lanes: dict[Hashable, Lane] = {}  # changed by ticks only, which read it without
        self._news = False  # whether to tick although every request paused
        self._pressed_until = -math.inf
        # Set once, under ``_lock``; read without.
        self._draining = self._stopping = False
        self._thread: threading.Thread | None = None  # start and close are called by one thread
        self.metrics.watch(self)

    # -- called from any thread

    def submit(self, request: Request, network: Network) -> AsyncStream:
        """Serve a request for a reader on the running event loop.

        Raises Overloaded or TooLarge before allocating anything.
        """
        loop = asyncio.get_running_loop()
        self.check(request.symbols)
        with self._lock:
            bridge = self._bridges.get(loop)
            if bridge is None:
                bridge = self._bridges[loop] = Bridge(loop)
        stream = AsyncStream(request.sequences, bridge)
        small = (
            request.sequences <= _FIRST_TICK_SEQUENCES and request.symbols <= _FIRST_TICK_SYMBOLS
        )
        alone = small and self._thread is not None and not self._open
        stream.resume = self._resume
        stream.cancel = self.submit_to(stream, request, network, wake=not alone)
        if alone:
            self._first_tick()
        return stream

    def submit_blocking(self, request: Request, network: Network) -> BlockingStream:
        """As ``submit``, for a reader in a thread."""
        self.check(request.symbols)
        stream = BlockingStream(request.sequences)
        stream.resume = self._resume
        stream.cancel = self.submit_to(stream, request, network)
        return stream

    def submit_to(
        self, sink: Sink, request: Request, network: Network, *, wake: bool = True
    ) -> Callable[[], None]:
        """Serve a request into any sink; returns a function that cancels it.

        Without ``wake`` the engine's thread may stay asleep: the caller does the first tick.
        """
        now = self._clock()
        timeout = request.timeout_seconds
        self.check(request.symbols)
        bias_row(request.sampling, network.decoder.symbols)  # raises for an unknown symbol
        deadline = None if timeout is None else now + timeout
        submission = Submission(request, network, sink, deadline, now)
        with self._lock:
            self._check(request.symbols)
            self._scheduler.enter(submission)
            self._open[submission] = None
            if wake:
                self._notify()

        def cancel() -> None:
            with self._lock:
                submission.cancelled = True
                self._notify()

        return cancel

    def press(self) -> None:
        """Somebody was refused memory for a network: paused requests must not keep theirs."""
        with self._lock:
            self._pressed_until = self._clock() + _PRESS_SECONDS
            self._notify()

    def forget(self, key: Hashable) -> None:
        """Drop the rows and cached states of an unloaded network at the next tick."""
        with self._lock:
            self._forgotten.append(key)
            self._notify()

    @property
    def busy(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self._open)

    @property
    def draining(self) -> bool:
        return self._draining

    def start(self) -> None:
        """Run ticks in a thread until ``close``."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def close(self, drain_seconds: float = 0.0) -> None:
        """Refuse new requests; end those still open after ``drain_seconds`` with Overloaded."""
        with self._wake:
            self._draining = True
            self._wake.wait_for(lambda: not self._open or not self._thread, drain_seconds)
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._ticking:
            self._end_all(_shutting_down())
            self._workers.close()
            self._flush()

    def check(self, symbols: int) -> None:
        """Check that a request of ``symbols`` symbols can be accepted now.

        Raises Overloaded or TooLarge.
        """
        with self._lock:
            self._check(symbols)

    def _check(self, symbols: int) -> None:
        if self._draining:
            raise _shutting_down()
        self._scheduler.check(symbols)

    def _resume(self) -> None:
        with self._lock:
            self._notify()

    def _notify(self) -> None:
        self._lock.check()
        self._news = True
        self._wake.notify_all()

    def _first_tick(self) -> None:
        """A short tick in the caller's thread; the engine's thread does the rest."""
        working = True
        if self._ticking.acquire(blocking=False):
            try:
                working = self._safe_tick(_FIRST_TICK_SECONDS)
            finally:
                self._ticking.release()
        if working or self._draining:
            self._resume()

    # -- called from the thread of a tick

    def tick(self, seconds: float = TICK_SECONDS) -> bool:
        """Do one tick; return whether there is more to do."""
        with self._ticking:
            return self._tick(seconds)

    def _tick(self, seconds: float) -> bool:
        self._ticking.check()
        self._tidy()
        self._admit(self._clock() + seconds * _ADMISSION_SHARE)
        lane = self._next_lane()
        if lane is not None:
            start = self._clock()
            advanced = self._turn(lane, seconds)
            taken = self._clock() - start
            with self._lock:
                self._scheduler.used(lane.network.key, taken, advanced)
            self.metrics.ticked(taken, advanced)
        self._flush()
        return bool(self._open)

    def _next_lane(self) -> Lane | None:
        """The lane whose turn it is; None if every request pauses."""
        busy = [key for key, lane in self._lanes.items() if lane.moving]
        self._all_pause = not busy
        if not busy:
            return None
        with self._lock:
            return self._lanes[self._scheduler.turn(busy)]

    @property
    def rows(self) -> int:
        return self.limits.rows

    @property
    def running(self) -> int:
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        return self._scheduler.waiting_requests

    @property
    def state_bytes(self) -> int:
        with self._lock:
            return sum(lane.nbytes for lane in self._lanes.values())

    @property
    def cache_bytes(self) -> int:
        return self.cache.bytes

    @property
    def cache_queries(self) -> int:
        return self.cache.queries

    @property
    def cache_hits(self) -> int:
        return self.cache.hits

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._open and not self._forgotten and not self._stopping:
                    self._wake.wait()
                if self._open and self._all_pause:
                    self._wake.wait_for(lambda: self._news or self._stopping, _LOOK_SECONDS)
                if self._stopping:
                    return
                self._news = False
            with self._ticking:
                working = self._safe_tick(TICK_SECONDS)
            if not working:
                with self._wake:
                    self._wake.notify_all()  # who closes the engine waits for this

    def _safe_tick(self, seconds: float) -> bool:
        try:
            return self._tick(seconds)
        except Exception as error:  # a bug of ours: later requests are still served
            logger.exception("a tick failed")
            self._end_all(error)
            self._flush()
            return False

    def _turn(self, lane: Lane, seconds: float) -> int:
        try:
            return lane.turn(seconds, self._emit, self._flush)
        except Exception as error:  # a bug of ours: the requests of other networks continue
            logger.exception("a turn of network %s failed", lane.network.key)
            for admitted in list(lane.running):
                self._end(admitted.submission, error)
            return 0

    def _tidy(self) -> None:
        """End what is cancelled, late or stalled; drop what unloaded networks have left."""
        now = self._clock()
        with self._lock:
            opened = list(self._open)
            crowded = self._scheduler.crowded or now < self._pressed_until
            forgotten, self._forgotten = self._forgotten, []
        for submission in opened:
            submission.note_reader(now)
            error = _ending(submission, now, crowded)
            if error is not None or submission.cancelled:
                self._end(submission, error)
        left = [key for key in forgotten if not self._unload(key)]
        with self._lock:
            self._forgotten += left

    def _unload(self, key: Hashable) -> bool:
        """Drop a network's rows and states, unless some rows are still in use."""
        if key in self._lanes and self._lanes[key].running:
            return False
        with self._lock:
            self._lanes.pop(key, None)
        self.cache.forget(key)
        return True

    def _admit(self, until: float) -> None:
        """Give free rows to waiting requests; at ``until``, leave the rest for the next tick."""
        while admitted := self._next():
            try:
                self._lane(admitted.submission.network).admit(admitted)
            except BaseException:
                with self._lock:
                    self._scheduler.running -= 1
                raise
            if self._clock() >= until:
                return

    def _next(self) -> Admitted | None:
        with self._lock:
            waiting = self._scheduler.next_request()
            if waiting is None:
                return None
            assert isinstance(waiting, Submission)
            admitted = waiting.next_sequence()
            self._scheduler.running += 1
            if not waiting.unadmitted:
                self._scheduler.leave(waiting)
            return admitted

    def _lane(self, network: Network) -> Lane:
        self._ticking.check()
        lane = self._lanes.get(network.key)
        if lane is None:
            lane = Lane(network, self.cache, self._clock, self.limits.rows, self._workers)
            with self._lock:
                self._lanes[network.key] = lane
        return lane

    def _emit(self, admitted: Admitted, piece: Piece) -> None:
        submission = admitted.submission
        self.metrics.emitted(submission, piece, self._clock())
        submission.sink.push(piece)
        if piece.finish is not None:
            with self._lock:
                self._lanes[submission.network.key].drop(admitted)
                self._scheduler.running -= 1
                submission.finished()
                if submission.left == 0:
                    self._open.pop(submission, None)

    def _end(self, submission: Submission, error: Exception | None) -> None:
        """Abandon a request: free its rows and report the error to its reader, if any."""
        self._ticking.check()
        with self._lock:
            if self._open.pop(submission, self) is self:
                return
            self._scheduler.leave(submission)
            lane = self._lanes.get(submission.network.key)
            if lane is not None:
                self._scheduler.running -= lane.drop_all(submission)
        self.metrics.gave_up(error)
        submission.sink.fail(error or Abandoned("the reader abandoned the request."))

    def _end_all(self, error: Exception) -> None:
        with self._lock:
            opened = list(self._open)
        for submission in opened:
            self._end(submission, error)

    def _flush(self) -> None:
        with self._lock:
            bridges = list(self._bridges.values())
        for bridge in bridges:
            bridge.flush()


def _ending(submission: Submission, now: float, crowded: bool) -> Exception | None:
    """Why a request must end now, if it must."""
    if submission.deadline is not None and now >= submission.deadline:
        return _too_late()
    paused_at = submission.paused_at
    if crowded and paused_at is not None and now - paused_at >= _PAUSE_SECONDS:
        return TooLate(
            f"nothing was read for {_PAUSE_SECONDS:g} seconds while other requests waited.",
            code="reader_too_slow",
        )
    return None


def _shutting_down() -> Overloaded:
    return Overloaded(
        "the server is shutting down; try again later.",
        retry_after_seconds=_RESTART_SECONDS,
        code="draining",
    )


def _too_late() -> TooLate:
    return TooLate("the request did not finish within its time limit.")
