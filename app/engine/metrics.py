"""Prometheus metrics of the engine.

They cost the engine a few additions per tick. ``Metrics()`` makes its own registry; the
web process passes the registry that it exposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from .piece import Piece
from .submission import Submission

_NAME: Final = "charloom_engine_"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Figures(Protocol):
    """The figures that metrics read from an engine when scraped."""

    @property
    def rows(self) -> int:
        """The maximum number of rows."""

    @property
    def running(self) -> int:
        """Rows in use."""

    @property
    def waiting(self) -> int:
        """Waiting requests."""

    @property
    def state_bytes(self) -> int:
        """Bytes of running states."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of cached states."""

    @property
    def cache_queries(self) -> int:
        """Prefixes looked up so far."""

    @property
    def cache_hits(self) -> int:
        """Prefixes found so far."""


class Metrics:
    """Prometheus metrics of one engine."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = CollectorRegistry() if registry is None else registry
        self.registry = registry
        gauge = partial(Gauge, registry=registry)
        counter = partial(Counter, registry=registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=registry)
        self.running = gauge(_NAME + "rows_running", "Rows in use.")
        self.rows = gauge(_NAME + "rows", "Maximum number of rows.")
        self.waiting = gauge(_NAME + "requests_waiting", "Waiting requests.")
        self.symbols = counter(_NAME + "symbols", "Symbols read or drawn.")
        self.finished = counter(
            _NAME + "sequences_finished", "Finished sequences by finish reason.", ["reason"]
        )
        self.ended = counter(
            _NAME + "requests_ended_early", "Requests cancelled, late or failed.", ["why"]
        )
        self.first = seconds(
            _NAME + "first_symbol_seconds", "From submission to the first drawn symbol."
        )
        self.gap = seconds(
            _NAME + "gap_seconds", "Between two pieces of one text, as the engine makes them."
        )
        self.tick = seconds(_NAME + "tick_seconds", "Duration of one tick.")
        self.cache_bytes = gauge(_NAME + "state_cache_bytes", "Bytes of cached states.")
        self.state_bytes = gauge(_NAME + "state_bytes", "Bytes of running states.")
        self.model_bytes = gauge(_NAME + "model_bytes", "Bytes of loaded models.")

    def watch(self, figures: Figures) -> None:
        """Read ``figures`` at every scrape, so that an idle engine shows zero."""
        self.rows.set(figures.rows)
        self.running.set_function(lambda: figures.running)
        self.waiting.set_function(lambda: figures.waiting)
        self.cache_bytes.set_function(lambda: figures.cache_bytes)
        self.state_bytes.set_function(lambda: figures.state_bytes)
        self.registry.register(_Lookups(figures))

    def watch_models(self, loaded_bytes: Callable[[], int]) -> None:
        """Call ``loaded_bytes`` at every scrape."""
        self.model_bytes.set_function(loaded_bytes)

    def ticked(self, seconds: float, symbols: int) -> None:
        """Count a tick, its seconds and its symbols."""
        self.tick.observe(seconds)
        self.symbols.inc(symbols)

    def emitted(self, submission: Submission, piece: Piece, now: float) -> None:
        """Count a piece that goes to its reader."""
        if piece.ids:
            if not submission.spoke:
                submission.spoke = True
                self.first.observe(now - submission.submitted)
            before = submission.last_piece.get(piece.index)
            if before is not None:
                self.gap.observe(now - before)
            submission.last_piece[piece.index] = now
        if piece.finish is not None:
            self.finished.labels(piece.finish.value).inc()

    def gave_up(self, error: Exception | None) -> None:
        """Count a request that ended early; without an error, its reader cancelled it."""
        why = "cancelled" if error is None else getattr(error, "code", "error")
        self.ended.labels(why).inc()


class _Lookups(Collector):
    """Lookups and hits of prefixes, from the cache's own counters."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[CounterMetricFamily]:
        for what, meaning, value in (
            ("queries", "Prefixes looked up.", self._figures.cache_queries),
            ("hits", "Prefixes found.", self._figures.cache_hits),
        ):
            yield CounterMetricFamily(f"{_NAME}state_cache_{what}", meaning, value)
