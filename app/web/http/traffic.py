"""Metrics of requests (never of their text) and of jobs by state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Scope

from ...jobs.states import JobState
from .logs import FIELDS

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_log = logging.getLogger("charloom.requests")


class Traffic:
    """Requests by route template, method and status: a bounded number of series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["method", "route", "status"]
        self._requests = Counter(
            "charloom_http_requests", "Requests answered.", labels, registry=registry
        )
        self._seconds = Histogram(
            "charloom_http_request_seconds",
            "From a request's first byte to the last byte of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )

    def __call__(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a finished request; status 0 means that its client left before the answer."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._requests.labels(method, route, str(status or 499)).inc()
        self._seconds.labels(route).observe(seconds)
        _log.info(
            "%s %s %s in %.1f ms [%s]",
            method,
            route if route != "none" else ascii(scope["path"][:200]),
            status or 499,
            seconds * 1000,
            scope["state"]["request_id"],
            extra={
                FIELDS: {
                    "request_id": scope["state"]["request_id"],
                    "method": method,
                    "route": None if route == "none" else route,
                    "status": status or 499,
                    "ms": round(seconds * 1000, 1),
                }
            },
        )


class JobGauge:
    """Training jobs by state: one series per state."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Gauge("charloom_jobs", "Training jobs.", ["state"], registry=registry)

    def show(self, counts: Mapping[str, int]) -> None:
        """``counts``: state -> number of jobs; a missing state has none."""
        for state in JobState:
            self._jobs.labels(state.value).set(counts.get(state, 0))
