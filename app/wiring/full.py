"""The parts that compute: artifacts, the engine, planning and running jobs.

They extend ``Installation``; each part is built from the settings once, on first use.
The server, the runner and the commands that train, write and score use the parts
they need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Final

from ..catalog.datasets import Datasets
from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..engine.engine import Engine
from ..engine.metrics import Metrics
from ..engine.resident import Resident
from ..engine.scheduler import Limits
from ..jobs.checkpoints.retention import Retention
from ..jobs.dispatcher import Dispatcher
from ..jobs.executors import Executor
from ..jobs.executors.local import LocalExecutor
from ..jobs.jobs import Jobs
from ..settings import Settings
from ..store.blobs import BlobStore
from ..training.machine import gpus, machine_speed, memory_limit, training_threads
from .installation import Installation

_MIB: Final = 1 << 20


def _local(settings: Settings) -> Executor:
    folder = settings.data_dir / "runners"
    return LocalExecutor(runner_environment(settings), folder, gpus=gpus())


#: Keys are the values of the setting ``executor``.
_EXECUTORS: Final[Mapping[str, Callable[[Settings], Executor]]] = {"local": _local}


class FullInstallation(Installation):
    """An installation that computes.

    ``metrics`` are the engine's counters; ``executor`` replaces the one that the
    settings name.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        executor: Executor | None = None,
        migrate: bool = True,
    ) -> None:
        super().__init__(settings, migrate=migrate)
        self._metrics = metrics
        self._executor = executor

    @cached_property
    def registry(self) -> Registry:
        """Names, versions and aliases, and the artifacts behind them."""
        self._bring_shipped_models()
        return Registry(self.database, self.models)

    @cached_property
    def datasets(self) -> Datasets:
        """Texts, and unfinished uploads, which are in the data folder.

        It is created here, when a process starts.
        """
        with suppress(OSError):  # whoever writes says what is wrong with it
            self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        blobs = BlobStore(self.settings.datasets_url)
        return Datasets(self.database, blobs, self.settings.data_dir / "uploads")

    @cached_property
    def engine(self) -> Engine:
        """The inference engine, not started yet."""
        settings = self.settings
        return Engine(
            Limits(rows=settings.max_streams, waiting_requests=settings.queue_limit),
            cache_bytes=settings.state_cache_mb * _MIB,
            metrics=self._metrics,
            threads=settings.threads,
        )

    @cached_property
    def resident(self) -> Resident[ModelVersion]:
        """The loaded model versions."""
        limit = self.settings.model_memory_mb * _MIB
        return Resident(
            self.registry,
            limit_bytes=limit,
            on_unload=self.engine.forget,
            on_full=self.engine.press,
        )

    @cached_property
    def jobs(self) -> Jobs:
        """Submits, shows and controls jobs; they run only where there is a dispatcher."""
        limit, threads = self.settings.training_memory_mb, self._training_threads
        return Jobs(
            self.database,
            self.registry,
            self.datasets,
            self.checkpoints,
            memory_limit=memory_limit if limit is None else lambda: limit * _MIB,
            times=self.times,
            speed=lambda: machine_speed(threads),
            on_change=self._wake_dispatcher,
        )

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Runs queued jobs once it is started."""
        settings = self.settings
        days = settings.checkpoint_days
        return Dispatcher(
            self.database,
            self._executor or _EXECUTORS[settings.executor](settings),
            slots=settings.training_slots,
            times=self.times,
            retention=Retention(self.database, self.checkpoints, days=days),
            chores=(self.registry.deletions.sweep, self.datasets.deletions.sweep),
        )

    @property
    def _training_threads(self) -> int:
        return training_threads(self.settings.threads, self.settings.training_slots)

    def _wake_dispatcher(self) -> None:
        if "dispatcher" in self.__dict__:
            self.dispatcher.wake()


def runner_environment(settings: Settings) -> dict[str, str]:
    """The variables with which a runner finds this server's database and stores.

    They hold in any working folder; a runner on another machine needs URLs of services.
    """
    place = settings.absolute()
    threads = str(training_threads(settings.threads, settings.training_slots))
    environment = {
        "CHARLOOM_DATABASE_URL": place.resolved_database_url,
        "CHARLOOM_MODELS_DIR": place.models_url,
        "CHARLOOM_DATA_DIR": str(place.data_dir),
        "CHARLOOM_LEASE_SECONDS": str(settings.lease_seconds),
        "CHARLOOM_THREADS": threads,
        # More threads would take processors away from serving.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMBA_NUM_THREADS": threads,
    }
    if place.store_url is not None:
        environment["CHARLOOM_STORE_URL"] = place.store_url
    return environment
