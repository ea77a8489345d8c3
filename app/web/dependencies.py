"""What the routes stand on: database, registry, engine, datasets, jobs, built once.

``open_backend`` builds it all from the settings and takes it down again; routes
get it with ``Depends``. Knows no request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias

import anyio
from fastapi import Depends, Request

from app.database.session import Database
from app.dataset_store import Datasets, open_datasets
from app.engine.engine import Engine
from app.engine.metrics import Metrics
from app.engine.resident import Lease, Resident, compile_ahead
from app.engine.scheduler import Limits
from app.errors import (
    CharloomError,
    InvalidArtifact,
    InvalidInput,
    Overloaded,
    StorageFailed,
)
from app.jobs.assembly import build
from app.jobs.dispatcher import Dispatcher
from app.jobs.facade import Jobs
from app.registry import ModelVersion, Registry, Synchronised
from app.settings import Settings
from app.store.blobs import BlobStore

DRAIN_SECONDS: Final = 20.0
_MIB: Final = 1 << 20
_DESCRIBED: Final = 2
_LOADERS: Final = 4
_log = logging.getLogger(__name__)

ModelLease: TypeAlias = Lease[ModelVersion]


@dataclass
class Backend:
    """Everything that lives as long as the server."""

    settings: Settings
    database: Database
    blobs: BlobStore
    registry: Registry
    engine: Engine
    resident: Resident[ModelVersion]
    datasets: Datasets
    jobs: Jobs
    dispatcher: Dispatcher
    #: Held while an upload is described: few at a time.
    describing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_DESCRIBED))
    _loaders: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_LOADERS, "loader")
    )
    _loading: dict[str, asyncio.Future[ModelLease]] = field(default_factory=dict)
    _draining: asyncio.Task[None] | None = None

    async def lease(self, name: str | None) -> ModelLease:
        """The right to use a model, by its name or the default one; release it after.

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

    def _load(self, name: str) -> asyncio.Future[ModelLease]:
        """Have a model loaded, once however many wait, in threads that do nothing else."""
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(self._loaders, self.resident.acquire, name)
        self._loading[name] = loading

        def loaded(done: asyncio.Future[ModelLease]) -> None:
            del self._loading[name]
            if not done.cancelled() and done.exception() is None:
                done.result().release()  # who waited takes a lease of their own

        loading.add_done_callback(loaded)
        return loading

    async def missing(self) -> list[str]:
        """What is not ready to serve: of database, store, engine."""
        found = ["engine"] if self.engine.draining else []
        for name, check in (("database", self.database.ping), ("store", self._look_into_store)):
            try:
                with anyio.fail_after(3):
                    await asyncio.to_thread(check)
            except (CharloomError, TimeoutError):
                found.append(name)
        return found

    def _look_into_store(self) -> None:
        self.blobs.sizes("readyz")  # nothing lies there: an object store answers at once

    def drain(self) -> asyncio.Task[None]:
        """Take no more requests and end those that last too long; the same task each time."""
        if self._draining is None:
            closing = asyncio.to_thread(self.engine.close, DRAIN_SECONDS)
            self._draining = asyncio.create_task(closing)
        return self._draining

    def close_loaders(self) -> None:
        """Load nothing more."""
        self._loaders.shutdown(wait=False, cancel_futures=True)

    async def _only_model(self) -> str:
        names = [each.name for each in await asyncio.to_thread(self.registry.list)]
        if len(names) != 1:
            there = f"There are {', '.join(names[:20])}" if names else "There is none yet"
            raise InvalidInput(f"Name a model. {there}.", param="model", code="missing")
        return names[0]


@asynccontextmanager
async def open_backend(settings: Settings, metrics: Metrics) -> AsyncIterator[Backend]:
    """Migrate the database, find the models, start the engine; close them at the end."""
    backend = await asyncio.to_thread(_build, settings, metrics)
    backend.engine.start()
    backend.dispatcher.start()
    try:
        yield backend
    finally:
        await asyncio.to_thread(backend.dispatcher.close)  # training goes on by itself
        await backend.drain()
        backend.close_loaders()
        await asyncio.to_thread(backend.database.close)


def _build(settings: Settings, metrics: Metrics) -> Backend:
    database = Database(settings.resolved_database_url)
    database.migrate()
    blobs = BlobStore(settings.models_dir)
    registry = Registry(database, blobs)
    _say_what_was_found(registry.synchronise())
    precisions = {each.card["serving_precision"] for each in registry.list()} or {"int8"}
    _log.info("preparing inference; seconds the first time on a machine, then a moment")
    compile_ahead(precisions)
    limits = Limits(rows=settings.max_streams, waiting_requests=settings.queue_limit)
    engine = Engine(
        limits,
        cache_bytes=settings.state_cache_mb * _MIB,
        metrics=metrics,
        threads=settings.threads,
    )
    resident = Resident(
        registry, limit_bytes=settings.model_memory_mb * _MIB, on_unload=engine.forget
    )
    metrics.watch_models(lambda: resident.bytes)
    datasets = open_datasets(settings, database)
    datasets.sweep()
    system = build(settings, database, registry, datasets)
    return Backend(
        settings,
        database,
        blobs,
        registry,
        engine,
        resident,
        datasets,
        system.jobs,
        system.dispatcher,
    )


def _say_what_was_found(report: Synchronised) -> None:
    for model in report.added:
        _log.info("found model %s", model)
    for model in report.missing:
        _log.warning("model %s has no file any more", model)
    for key, reason in report.damaged.items():
        _log.warning("passed over %s: %s", key, reason)


async def _backend(request: Request) -> Backend:  # async: else it would take a thread
    backend: Backend | None = getattr(request.app.state, "backend", None)
    if backend is None:
        raise Overloaded("The server is starting.", code="starting")
    return backend


ServedBy = Annotated[Backend, Depends(_backend)]
