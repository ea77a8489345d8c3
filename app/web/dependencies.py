"""What the routes use: one installation, open as long as the server runs.

``open_backend`` opens and closes it; routes get it with ``Depends``. Knows no request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Request

from ..catalog.index import Synchronised
from ..catalog.model_rows import ModelVersion
from ..engine.metrics import Metrics
from ..engine.resident import Hold, compile_ahead
from ..errors import InvalidArtifact, InvalidInput, Overloaded, StorageFailed
from ..settings import Settings
from ..wiring.full import FullInstallation
from . import probes
from .probes import Probe

DRAIN_SECONDS: Final = 20.0
_DESCRIBED: Final = 2
_LOADERS: Final = 4
_log = logging.getLogger(__name__)

ModelHold: TypeAlias = Hold[ModelVersion]


class Backend:
    """Everything that lives as long as the server."""

    def __init__(self, installation: FullInstallation) -> None:
        self.installation = installation
        self.settings = installation.settings
        self.registry = installation.registry
        self.engine = installation.engine
        self.resident = installation.resident
        self.datasets = installation.datasets
        self.jobs = installation.jobs
        self.describing = asyncio.Semaphore(_DESCRIBED)
        """Limits how many uploads are described at a time."""
        self._loaders = ThreadPoolExecutor(_LOADERS, "loader")
        self._loading: dict[str, asyncio.Future[ModelHold]] = {}
        self._draining: asyncio.Task[None] | None = None
        self._watchers = ThreadPoolExecutor(4, "watcher")
        self._probes = {
            "database": Probe(self._watchers, installation.database.ping),
            "store": Probe(self._watchers, self._look_into_store),
            "data_folder": Probe(self._watchers, self._look_into_data),
        }
        self.job_counts = Probe(self._watchers, partial(self.jobs.counts, hurried=True))
        """The number of jobs by state; raises what ``JobControl.counts`` raises."""

    async def hold(self, name: str | None) -> ModelHold:
        """Hold the model version with this name, or the default one; the caller releases it.

        Raises UnknownModel and what loading raises.
        """
        if name is None:
            name = self.settings.default_model or await self._only_model()
        while True:
            ready = self.resident.try_acquire(name)
            if ready is not None:
                return ready
            loading = self._loading.get(name) or self._load(name)
            try:
                await asyncio.shield(loading)  # others may wait for it too
            except InvalidArtifact as error:  # a file of ours, not the client's
                raise StorageFailed(error.message, code="damaged_model") from error

    def _load(self, name: str) -> asyncio.Future[ModelHold]:
        """Load a model version in a thread for loading only, once for everyone who waits."""
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(self._loaders, self.resident.acquire, name)
        self._loading[name] = loading

        def loaded(done: asyncio.Future[ModelHold]) -> None:
            del self._loading[name]
            if not done.cancelled() and done.exception() is None:
                done.result().release()  # each waiter takes its own hold

        loading.add_done_callback(loaded)
        return loading

    async def missing(self) -> dict[str, str]:
        """Which of engine, database, store and data folder are not ready to serve, and why."""
        found = {"engine": "The server is stopping."} if self.engine.draining else {}
        return found | await probes.wrong(self._probes)

    def _look_into_store(self) -> None:
        # An empty prefix: an object store answers at once.
        self.installation.models.sizes("readyz")

    def _look_into_data(self) -> None:
        probes.check_folder(self.settings.data_dir)

    def drain(self) -> asyncio.Task[None]:
        """Stop taking requests and end those that run too long; each call gives the same task."""
        if self._draining is None:
            closing = asyncio.to_thread(self.engine.close, DRAIN_SECONDS)
            self._draining = asyncio.create_task(closing)
        return self._draining

    def close_loaders(self) -> None:
        """Stop loading models and looking at what they need."""
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._watchers.shutdown(wait=False, cancel_futures=True)

    async def _only_model(self) -> str:
        names = await asyncio.to_thread(self.registry.names)
        if len(names) != 1:
            known = f": {', '.join(names)}" if names else "; there is none yet"
            raise InvalidInput(f"Name a model{known}.", param="model", code="missing")
        return names[0]


@asynccontextmanager
async def open_backend(settings: Settings, metrics: Metrics) -> AsyncIterator[Backend]:
    """Migrate the database, find the models, start engine and dispatcher; close them at the end."""
    installation = FullInstallation(settings, metrics=metrics)
    await asyncio.to_thread(_prepare, installation)
    metrics.watch_models(lambda: installation.resident.bytes)
    backend = Backend(installation)
    installation.engine.start()
    installation.dispatcher.start()
    try:
        yield backend
    finally:
        await asyncio.to_thread(installation.dispatcher.close)  # running jobs continue on their own
        await backend.drain()
        backend.close_loaders()
        await asyncio.to_thread(installation.close)


def _prepare(installation: FullInstallation) -> None:
    """Do the slow work before the first request: tables, files, compiled code."""
    with suppress(OSError):  # /readyz says what is wrong with it
        installation.settings.data_dir.mkdir(parents=True, exist_ok=True)
    registry = installation.registry
    _say_what_was_found(registry.synchronise())
    precisions = {each.card["serving_precision"] for each in registry.list()} or {"int8"}
    _log.info("preparing inference; the first time on a machine this takes seconds")
    compile_ahead(precisions)
    installation.datasets.sweep()


def _say_what_was_found(report: Synchronised) -> None:
    for model in report.added:
        _log.info("found model %s", model)
    for model in report.missing:
        _log.warning("the file of model %s is missing", model)
    for key, reason in report.damaged.items():
        _log.warning("skipped %s: %s", key, reason)


async def _backend(request: Request) -> Backend:  # async, else FastAPI uses a thread
    backend: Backend | None = getattr(request.app.state, "backend", None)
    if backend is None:
        raise Overloaded("The server is starting.", code="starting")
    return backend


ServedBy = Annotated[Backend, Depends(_backend)]
