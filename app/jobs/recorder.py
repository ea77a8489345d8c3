"""Report a training's progress to the database, from a second thread.

Takes every ``Progress``; writes points, progress and heartbeats through ``RunnerDoor``, and
reads what the user wants (``wish``). The training thread only appends to a list, so a busy or
absent database never delays it: failed writes are kept and retried. If the process dies, at
most the last two seconds of points are lost. A lost lease calls ``on_lost`` at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import psutil

from ..charlm.measures import Measures
from ..charlm.training import Progress
from ..errors import LeaseLost, Overloaded, StorageFailed
from .runner_door import RunnerDoor
from .states import Wish
from .values import Claim, JobProgress, Level, Point, Sample

FLUSH_SECONDS: Final = 2.0
_LEAST_GAP: Final = 0.5  # seconds between points in the first ten minutes
_GAPS: Final = 1200  # after that, the gap is the elapsed time divided by this
_MOST_KEPT: Final = 100_000  # points kept while the database is away
_MOST_SAMPLES: Final = 1_000


class Recorder:
    """Use as a context manager around a training; ``wish`` may be read at any time.

    Times are in seconds of ``clock``; points carry the time of the wall clock.
    """

    def __init__(
        self,
        door: RunnerDoor,
        claim: Claim,
        run_id: str,
        *,
        heartbeat_seconds: float,
        on_lost: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wish = Wish.RUN
        self._door, self._claim, self._run_id = door, claim, run_id
        self._period = min(FLUSH_SECONDS, heartbeat_seconds)
        self._heartbeat = heartbeat_seconds
        self._on_lost = on_lost
        self._clock = clock
        self._began = self._flushed = clock()
        self._last_point = -float("inf")
        self._losses: list[float] = []
        self._points: list[Point] = []
        self._samples: list[Sample] = []
        self._progress: JobProgress | None = None
        self._validation: Measures | None = None
        self._lock = threading.Lock()  # guards what the training thread hands over
        self._writing = threading.Lock()  # one writer at a time, in order
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def add(self, progress: Progress, *, always: bool = False) -> None:
        """Take in a step, in microseconds; its point is written soon, if due or ``always``."""
        if not always:
            self._losses.append(progress.train_loss)
        now = self._clock()
        if not (always or self._is_due(progress, now)):
            return
        self._last_point = now
        losses = self._losses or [progress.train_loss]
        loss = sum(losses) / len(losses)
        self._losses = []
        self._validation = progress.validation or self._validation
        points = _points(progress, loss, round(time.time() * 1000))
        shown = JobProgress(
            step=progress.step,
            steps=progress.steps,
            epoch=progress.epoch,
            fraction=progress.fraction,
            characters_per_second=progress.characters_per_second,
            train_loss=loss,
            validation_bits_per_character=(
                self._validation.bits_per_character if self._validation else None
            ),
            eta_seconds=progress.eta_seconds,
        )
        with self._lock:
            self._points += points
            del self._points[:-_MOST_KEPT]
            self._progress = shown

    def show(self, step: int, text: str) -> None:
        """Take in what the network writes after a step; it is written with the next points."""
        with self._lock:
            self._samples.append(Sample(step, round(time.time() * 1000), text))
            del self._samples[:-_MOST_SAMPLES]

    def _is_due(self, progress: Progress, now: float) -> bool:
        """Whether a step becomes a point: it was validated, or the last point is old enough."""
        gap = max(_LEAST_GAP, (now - self._began) / _GAPS)
        return progress.validation is not None or now - self._last_point >= gap

    def flush(self) -> None:
        """Write everything now; raises LeaseLost, Overloaded, StorageFailed."""
        with self._writing:
            if self._stopped.is_set():
                return  # the attempt is over, see ``end``
            with self._lock:
                points, self._points = self._points, []
                samples, self._samples = self._samples, []
                progress, self._progress = self._progress, None
            try:
                if points or progress or samples:
                    self.wish = self._door.record(
                        self._claim, self._run_id, points, progress, samples
                    )
                else:
                    self.wish = self._door.renew(self._claim)
            except (Overloaded, StorageFailed):
                with self._lock:
                    self._points[:0] = points
                    self._samples[:0] = samples
                    self._progress = self._progress or progress
                raise
            self._flushed = self._clock()

    def end(self, act: Callable[[], bool]) -> bool:
        """Call ``act``, which may end the attempt; if it returns True, nothing more is written.

        Returns what ``act`` returns.
        """
        with self._writing:
            ended = act()
            if ended:
                self._stopped.set()
            return ended

    def tell(self, type: str, message: str, *, level: Level = "info", **payload: Any) -> None:
        """Add an event; it is dropped if the database does not take it."""
        try:
            self.wish = self._door.tell(self._claim, type, message, level=level, payload=payload)
        except (Overloaded, StorageFailed):
            return  # a lost event must not stop the training

    def _beat(self) -> None:
        while not self._stopped.wait(self._period):
            due = self._clock() - self._flushed >= self._heartbeat
            with self._lock:
                waiting = bool(self._points)
            if not (due or waiting):
                continue
            try:
                self.flush()
            except LeaseLost:
                self._on_lost()
                return
            except (Overloaded, StorageFailed):
                continue  # the points are kept and retried after the next wait


def _points(progress: Progress, loss: float, at: int) -> list[Point]:
    values = {
        "train_loss": loss,
        "learning_rate": progress.learning_rate,
        "gradient_norm": progress.gradient_norm,
        "characters_per_second": progress.characters_per_second,
        "memory": float(psutil.Process().memory_info().rss),
    }
    measures = progress.validation
    if measures is not None:
        values |= {
            "validation_loss": measures.nats,
            "validation_bits_per_character": measures.bits_per_character,
            "validation_accuracy": measures.accuracy,
        }
    return [Point(name, progress.step, at, value) for name, value in values.items()]
