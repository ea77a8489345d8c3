"""What tests of jobs are made of: a database, stores, a dataset of words, jobs small enough."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.catalog.datasets import Dataset, Datasets
from app.catalog.models import Registry
from app.database.session import Database
from app.errors import Overloaded
from app.jobs.jobs import Jobs
from app.jobs.queue import Queue
from app.jobs.runner_door import RunnerDoor
from app.jobs.spec import JobSpec
from app.jobs.times import Times
from app.jobs.values import Job
from app.settings import Settings
from app.store.blobs import BlobStore

WORDS = ["".join(w) for w in itertools.product("bdk", "ae", "lmn", "io", "rst")]
NETWORK = {"cell": "gru", "layers": 1, "hidden_size": 8, "embedding_size": 4, "dropout": 0.2}
TRAINING: dict[str, Any] = {
    "max_steps": 20,
    "batch_size": 8,
    "window": 8,
    "learning_rate": 0.02,
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
}


@dataclass(frozen=True)
class Place:
    """Everything a server and its training processes share."""

    settings: Settings
    database: Database
    models: BlobStore
    registry: Registry
    datasets: Datasets
    checkpoints: BlobStore
    dataset: Dataset
    times: Times

    @property
    def jobs(self) -> Jobs:
        return Jobs(
            self.database,
            self.registry,
            self.datasets,
            self.checkpoints,
            memory_limit=lambda: 1 << 34,
            times=self.times,
            speed=lambda: 1e9,
        )

    @property
    def queue(self) -> Queue:
        return Queue(self.database, self.times)

    @property
    def door(self) -> RunnerDoor:
        return RunnerDoor(self.database, self.times)

    def spec(self, training: dict[str, Any] | None = None, **fields: Any) -> JobSpec:
        """A job of a second, but for what is asked for differently."""
        document = {
            "model": "words",
            "dataset": f"ds_{self.dataset.id}",
            "network": NETWORK,
            "training": TRAINING | (training or {}),
        }
        return JobSpec.parse(document | fields)

    def submitted(self, training: dict[str, Any] | None = None, **fields: Any) -> Job:
        return self.jobs.submit(self.spec(training, **fields))

    def events(self, job: Job) -> list[str]:
        """The types of what happened to a job."""
        return [event.type for event in self.jobs.events(job.id, limit=1000)]


def make_place(
    database: Database, folder: Path, *, url: str | None = None, lease: float = 60.0
) -> Place:
    """A place around a migrated database, with a dataset of 108 words."""
    settings = Settings(
        data_dir=folder / "data",
        models_dir=str(folder / "models"),
        database_url=url or database.engine.url.render_as_string(hide_password=False),
        threads=1,
        lease_seconds=lease,
    )
    models = BlobStore(settings.models_dir)
    datasets = Datasets(database, BlobStore(settings.datasets_url))
    words = folder / "words.txt"
    words.write_text("\n".join(WORDS))
    return Place(
        settings=settings,
        database=database,
        models=models,
        registry=Registry(database, models),
        datasets=datasets,
        checkpoints=BlobStore(settings.checkpoints_url),
        dataset=datasets.add(words, "words", "lines"),
        times=Times(lease),
    )


def wait_for(holds: Callable[[], Any], seconds: float = 60.0, pause: float = 0.02) -> Any:
    """Wait until something holds, and give it; fails when it takes far too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(Overloaded):  # a database that somebody holds who stands still
            found = holds()
            if found:
                return found
        time.sleep(pause)
    raise AssertionError("waited in vain")
