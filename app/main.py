"""The web process: ``create_app`` builds it, its lifespan opens the backend once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import metadata
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from .engine.metrics import Metrics
from .settings import Settings
from .web.auth.keys import SCHEME, KeyRequired
from .web.dependencies import open_backend
from .web.http.lifecycle import HEALTH, Lifecycle, Served
from .web.http.middleware import Envelope, Gate
from .web.http.problems import install
from .web.http.traffic import JobGauge, Traffic
from .web.http.turns import Turns
from .web.routes import (
    completions,
    datasets,
    events,
    health,
    inspect,
    jobs,
    models,
    runs,
    score,
)
from .web.schemas import ProblemAnswer
from .wiring.environment import read_settings

_DESCRIPTION: Final = (
    "Trains, stores and serves character-level recurrent language models. "
    "Every error has the shape of the answers marked `default`."
)
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": ProblemAnswer, "description": "What went wrong, and which field."}
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; by default ``settings`` come from the environment."""
    settings = settings or read_settings()
    prometheus = CollectorRegistry()
    app = FastAPI(
        title="Charloom",
        description=_DESCRIPTION,
        version=metadata.version("charloom"),
        lifespan=_lifespan(settings, prometheus),
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
        redirect_slashes=False,
    )
    app.state.lifecycle = Lifecycle()
    app.state.prometheus = prometheus
    app.state.job_gauge = JobGauge(prometheus)
    install(app)
    for routes in (completions, score, inspect, models, datasets, jobs, events, runs, health):
        app.include_router(routes.router)
    # The last one added is the outermost: who has no key does not learn how far the start is.
    app.add_middleware(Turns, exempt=HEALTH)
    app.add_middleware(Served, lifecycle=app.state.lifecycle)
    if settings.api_key is not None:
        app.add_middleware(KeyRequired, key=settings.api_key.get_secret_value())
        _describe_key(app)
    app.add_middleware(Gate, hosts=settings.believed_hosts)
    app.add_middleware(Envelope, observe=Traffic(prometheus))
    return app


def _describe_key(app: FastAPI) -> None:
    """Say in the documentation that a key is needed, so that its page asks for it."""
    describe = app.openapi

    def with_key() -> dict[str, Any]:
        described = describe()
        described["components"]["securitySchemes"] = SCHEME
        described["security"] = [{name: []} for name in SCHEME]
        return described

    app.openapi = with_key  # type: ignore[method-assign]


def _lifespan(
    settings: Settings, prometheus: CollectorRegistry
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Hold the backend open while the application runs.

    A server that does not wait for the start (``web/http/server.py``) may pass on requests
    from the beginning: they are told how far it is.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lifecycle: Lifecycle = app.state.lifecycle
        async with open_backend(settings, Metrics(prometheus), lifecycle) as backend:
            app.state.backend = backend
            lifecycle.serving = True
            try:
                yield
            finally:
                lifecycle.serving = False

    return lifespan
