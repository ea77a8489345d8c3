"""What the routes use: one installation, open as long as the server runs.

``open_backend`` opens and closes it; routes get it with ``Depends``. Knows no request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Request

from ..catalog.model_rows import ModelVersion
from ..catalog.synchronising import Synchronised
from ..charlm.number_format import PRECISIONS
from ..engine.loader import Loader
from ..engine.metrics import Metrics
from ..engine.resident import Hold, compile_ahead
from ..errors import CharloomError, InvalidArtifact, StorageFailed
from ..settings import Settings
from ..wiring.full import FullInstallation
from . import probes
from .http.answers import AnswerRoom
from .http.lifecycle import Lifecycle, stopping
from .http.room import Room
from .inspecting import Inspecting
from .probes import Probe

_BARE_STORE: Final = "bare_store"  # the store by itself
_DESCRIBED: Final = 2
_SAID: Final = 20
_log = logging.getLogger(__name__)

ModelHold: TypeAlias = Hold[ModelVersion]


class Backend:
    """Everything that lives as long as the server."""

    def __init__(self, installation: FullInstallation) -> None:
        self.installation = installation
        self.settings = installation.settings
        self.registry = installation.registry
        self.engine = installation.engine
        self.loader = Loader(installation.resident)
        self.datasets = installation.datasets
        self.jobs = installation.jobs
        self.answers = AnswerRoom(self.settings.answer_memory_mb << 20)
        self.spools = Room(self.settings.spool_mb << 20)
        """Bytes on disk for answers that their readers have not read yet."""
        self.describing = asyncio.Semaphore(_DESCRIBED)
        """Limits how many uploads are described at a time."""
        self.lookers = ThreadPoolExecutor(4, "looker")
        """For looks at the model store: one that hangs keeps no other request from its thread."""
        self.inspecting = Inspecting(self.settings.request_seconds)
        self._watchers = ThreadPoolExecutor(6, "watcher")
        self._probes = {
            "database": Probe(self._watchers, installation.database.ping),
            "data_folder": Probe(self._watchers, self._look_into_data),
            "store": Probe(self._watchers, self.registry.check_store),
            _BARE_STORE: Probe(self._watchers, self._look_into_store),
        }
        self.job_counts = Probe(self._watchers, partial(self.jobs.counts, hurried=True))
        """The number of jobs by state; raises what ``JobControl.counts`` raises."""

    async def hold(self, name: str | None) -> ModelHold:
        """Hold the model version with this name, or the default one; the caller releases it.

        Raises UnknownModel and what loading raises.
        """
        try:
            return await self.loader.hold(self.settings.default_model if name is None else name)
        except InvalidArtifact as error:  # a file of ours, not the client's
            raise StorageFailed(error.message, code="damaged_model") from error

    async def missing(self) -> dict[str, str]:
        """Which of engine, database, store and data folder are not ready to serve, and why."""
        found = {"engine": "The server is stopping."} if self.engine.draining else {}
        found |= await probes.wrong(self._probes)
        bare = found.pop(_BARE_STORE, None)
        if "database" in found:  # without it, files cannot be compared with what it knows
            found.pop("store", None)
            found |= {} if bare is None else {"store": bare}
        return found

    def _look_into_store(self) -> None:
        self.installation.models.sizes("readyz")

    def _look_into_data(self) -> None:
        probes.check_folder(self.settings.data_dir)

    def close(self) -> None:
        """Stop loading models and looking at what they need."""
        self.loader.close()
        self.inspecting.close()
        for threads in (self._watchers, self.lookers):
            threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def open_backend(
    settings: Settings, metrics: Metrics, lifecycle: Lifecycle
) -> AsyncIterator[Backend]:
    """Migrate the database, find the models, start engine and dispatcher; close them at the end.

    ``lifecycle`` is told how far the start is; when it drains, the start ends with its error.
    """
    installation = FullInstallation(settings, metrics=metrics)
    await asyncio.to_thread(_prepare, installation, lifecycle)
    metrics.watch_models(lambda: installation.resident.bytes)
    backend = Backend(installation)
    installation.engine.start()
    installation.dispatcher.start()
    try:
        yield backend
    finally:
        backend.close()
        await asyncio.to_thread(installation.dispatcher.close)  # running jobs continue on their own
        await asyncio.to_thread(installation.engine.close)
        await asyncio.to_thread(installation.close)


def _prepare(installation: FullInstallation, lifecycle: Lifecycle) -> None:
    """Do the slow work before the first request: tables, files, compiled code.

    Raises Overloaded as soon as ``lifecycle`` drains, and what makes serving impossible.
    """

    def tell(progress: str) -> None:
        if lifecycle.draining.is_set():
            raise stopping()
        lifecycle.progress = progress

    tell("preparing the database")
    installation.database.check_writing()
    tell("looking into the model store")
    registry = installation.registry
    _say_what_was_found(
        registry.synchronise(lambda done, of: tell(f"{done:,} of {of:,} model files checked"))
    )
    tell("preparing inference")
    # A card that was damaged in the database may name none.
    served = [each.card.get("serving_precision") for each in registry.list()]
    _log.info("preparing inference; the first time on a machine this takes seconds")
    compile_ahead([each for each in PRECISIONS if each in served] or ["int8"])
    try:
        installation.datasets.sweep()
    except (CharloomError, OSError) as error:  # temporary files: they can wait
        _log.warning("old temporary files of datasets stay: %s", error)


def _say_what_was_found(report: Synchronised) -> None:
    for model in report.added:
        _log.info("found model %s", model)
    for model in report.missing[:_SAID]:
        _log.warning("the file of model %s is missing", model)
    if len(report.missing) > _SAID:
        _log.warning("the files of %d more are missing", len(report.missing) - _SAID)
    for key, reason in report.damaged.items():
        _log.warning("skipped %s: %s", key, reason)


async def _backend(request: Request) -> Backend:  # async, else FastAPI uses a thread
    backend: Backend = request.app.state.backend  # there as long as requests are taken
    return backend


ServedBy = Annotated[Backend, Depends(_backend)]
