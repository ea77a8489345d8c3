"""What the engine counts, for Prometheus.

Costs the engine a few additions a tick. ``Metrics()`` keeps its own registry;
the web process hands in the one it exposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from .sequence import Piece
from .submission import Submission

_NAME: Final = "charloom_engine_"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Figures(Protocol):
    """What metrics read from an engine when they are scraped."""

    @property
    def rows(self) -> int:
        """The most rows."""

    @property
    def running(self) -> int:
        """Rows in use."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""

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
        name = _NAME
        self.running = Gauge(name + "rows_running", "Rows in use.", registry=registry)
        self.rows = Gauge(name + "rows", "The most rows.", registry=registry)
        self.waiting = Gauge(name + "requests_waiting", "Requests that wait.", registry=registry)
        self.symbols = Counter(name + "symbols", "Symbols read or drawn.", registry=registry)
        self.finished = Counter(
            name + "sequences_finished", "By finish reason.", ["reason"], registry=registry
        )
        self.ended = Counter(
            name + "requests_ended_early", "Cancelled, late, failed.", ["why"], registry=registry
        )
        self.first = Histogram(
            name + "first_symbol_seconds",
            "From submission to the first drawn symbol of a request.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.gap = Histogram(
            name + "gap_seconds",
            "Between two pieces of one text, as the engine makes them.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.tick = Histogram(
            name + "tick_seconds", "Time of one tick.", buckets=_SECONDS, registry=registry
        )
        self.cache_bytes = Gauge(name + "state_cache_bytes", "Cached states.", registry=registry)
        self.state_bytes = Gauge(name + "state_bytes", "Running states.", registry=registry)
        self.model_bytes = Gauge(name + "model_bytes", "Loaded models.", registry=registry)

    def watch(self, figures: Figures) -> None:
        """Read these when scraped, so that an idle engine shows zero."""
        self.rows.set(figures.rows)
        self.running.set_function(lambda: figures.running)
        self.waiting.set_function(lambda: figures.waiting)
        self.cache_bytes.set_function(lambda: figures.cache_bytes)
        self.state_bytes.set_function(lambda: figures.state_bytes)
        self.registry.register(_Lookups(figures))

    def watch_models(self, loaded_bytes: Callable[[], int]) -> None:
        """Call ``loaded_bytes`` when scraped."""
        self.model_bytes.set_function(loaded_bytes)

    def ticked(self, seconds: float, symbols: int) -> None:
        """Count a tick, its seconds and its symbols."""
        self.tick.observe(seconds)
        self.symbols.inc(symbols)

    def emitted(self, submission: Submission, piece: Piece, now: float) -> None:
        """Count a piece that is sent."""
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
        """Count a request that ended early; no error means that its reader left."""
        why = "cancelled" if error is None else getattr(error, "code", "error")
        self.ended.labels(why).inc()


class _Lookups(Collector):
    """How often prefixes were looked up and found: counters that the cache keeps itself."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[CounterMetricFamily]:
        for what, meaning, value in (
            ("queries", "Prefixes looked up.", self._figures.cache_queries),
            ("hits", "Prefixes found.", self._figures.cache_hits),
        ):
            yield CounterMetricFamily(f"{_NAME}state_cache_{what}", meaning, value)
