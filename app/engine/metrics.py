"""What the engine counts, for Prometheus.

Costs the engine a few additions a tick. ``Metrics()`` keeps its own registry;
the web process hands in the one it exposes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from app.engine.engine import Engine
    from app.engine.sequence import Piece
    from app.engine.submission import Submission

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Prometheus metrics of one engine."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = CollectorRegistry() if registry is None else registry
        self.registry = registry
        name = "charloom_engine_"
        self.running = Gauge(name + "rows_running", "Rows in use.", registry=registry)
        self.waiting = Gauge(name + "requests_waiting", "Requests at the door.", registry=registry)
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
        self.tick = Histogram(
            name + "tick_seconds", "Time of one tick.", buckets=_SECONDS, registry=registry
        )
        self.cache_bytes = Gauge(name + "state_cache_bytes", "Cached states.", registry=registry)
        self.state_bytes = Gauge(name + "state_bytes", "Running states.", registry=registry)
        self.cache_queries = Gauge(
            name + "state_cache_queries", "Prefixes looked up.", registry=registry
        )
        self.cache_hits = Gauge(name + "state_cache_hits", "Prefixes found.", registry=registry)

    def watch(self, engine: Engine) -> None:
        """Look at this engine whenever figures are asked for, so that an idle one shows zero."""
        self.running.set_function(lambda: engine.running)
        self.waiting.set_function(lambda: engine.waiting)
        self.cache_bytes.set_function(lambda: engine.cache.bytes)
        self.cache_queries.set_function(lambda: engine.cache.queries)
        self.cache_hits.set_function(lambda: engine.cache.hits)
        self.state_bytes.set_function(lambda: engine.state_bytes)

    def ticked(self, seconds: float, symbols: int) -> None:
        """A tick took so long and advanced so many symbols."""
        self.tick.observe(seconds)
        self.symbols.inc(symbols)

    def emitted(self, submission: Submission, piece: Piece, now: float) -> None:
        """A piece goes out."""
        if piece.ids and not submission.spoke:
            submission.spoke = True
            self.first.observe(now - submission.submitted)
        if piece.finish is not None:
            self.finished.labels(piece.finish.value).inc()

    def gave_up(self, error: Exception | None) -> None:
        """A request ended before its time; no error means that its reader left."""
        why = "cancelled" if error is None else getattr(error, "code", "error")
        self.ended.labels(why).inc()
