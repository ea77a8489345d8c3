"""What the parts of the job system are made of, from the settings: one place for it.

The server builds ``JobSystem`` around its own database and registry; a training
process builds everything anew from its environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.database.session import Database
from app.jobs.dispatcher import Dispatcher
from app.jobs.executors import LocalExecutor
from app.jobs.facade import Jobs
from app.jobs.machine import machine_speed, training_threads
from app.jobs.retention import Retention
from app.jobs.sources import DatasetSource
from app.jobs.times import Times
from app.registry import Registry
from app.settings import Settings
from app.store.blobs import BlobStore


@dataclass(frozen=True)
class JobSystem:
    """The facade and the dispatcher behind it; start and close the dispatcher."""

    jobs: Jobs
    dispatcher: Dispatcher


def build(
    settings: Settings, database: Database, registry: Registry, datasets: DatasetSource
) -> JobSystem:
    """The job system of a server."""
    times = Times(settings.lease_seconds)
    checkpoints = checkpoint_store(settings)
    dispatcher = Dispatcher(
        database,
        LocalExecutor(runner_environment(settings), settings.data_dir / "runners"),
        slots=settings.training_slots,
        times=times,
        retention=Retention(database, checkpoints, days=settings.checkpoint_days),
    )
    limit = settings.training_memory_mb
    jobs = Jobs(
        database,
        registry,
        datasets,
        checkpoints,
        memory_limit_bytes=None if limit is None else limit << 20,
        times=times,
        speed=lambda: machine_speed(training_threads(settings.threads, settings.training_slots)),
        on_change=dispatcher.wake,
    )
    return JobSystem(jobs, dispatcher)


def checkpoint_store(settings: Settings) -> BlobStore:
    """Where checkpoints lie."""
    return BlobStore(str(settings.data_dir / "checkpoints"))


def runner_environment(settings: Settings) -> dict[str, str]:
    """What a training process must be told to find what this server has."""
    threads = training_threads(settings.threads, settings.training_slots)
    return {
        "CHARLOOM_DATABASE_URL": settings.resolved_database_url,
        "CHARLOOM_MODELS_DIR": settings.models_dir,
        "CHARLOOM_DATA_DIR": str(settings.data_dir),
        "CHARLOOM_LEASE_SECONDS": str(settings.lease_seconds),
        "CHARLOOM_THREADS": str(threads),
        # Threads beyond the cap would take the processors from serving.
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        # app is found as it was found here, installed or not.
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
