"""The training process of one attempt: ``python -m app.jobs.runner JOB NUMBER TOKEN``.

Finds everything by the settings in its environment; trains, tells how it goes,
writes checkpoints, publishes once. It may be killed at any moment: the next
attempt goes on from the newest good checkpoint. Everything it writes carries
its lease; when that is lost it ends at once. Exit codes: 0 the job was moved on
(whatever came of it), 3 the lease was lost, anything else a crash.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import torch

from app.charlm.network import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.database.session import Database
from app.dataset_store import open_datasets
from app.errors import (
    CharloomError,
    InvalidInput,
    LeaseLost,
    NotFound,
    Overloaded,
    StorageFailed,
    TrainingFailed,
)
from app.jobs.assembly import checkpoint_store
from app.jobs.executors import host_name, own_reference
from app.jobs.leases import Assignment, Leases
from app.jobs.publishing import adopt, publish, published_by
from app.jobs.queue import Claim
from app.jobs.recorder import Recorder
from app.jobs.saving import Savings
from app.jobs.settling import Settled
from app.jobs.sources import DatasetSource
from app.jobs.states import Wish
from app.jobs.times import Times
from app.jobs.training_run import Run, Wishes, plan
from app.registry import Registry
from app.settings import Settings
from app.store.artifact import Artifact, Lineage
from app.store.blobs import BlobStore
from app.store.card import library_versions

LEASE_LOST: Final = 3
_NICENESS: Final = 10
T = TypeVar("T")


@dataclass(frozen=True)
class Surroundings:
    """Where a training process finds things."""

    database: Database
    models: BlobStore
    registry: Registry
    datasets: DatasetSource
    checkpoints: BlobStore
    times: Times


class Attempt:
    """One attempt at one job, from beginning to end."""

    def __init__(self, around: Surroundings, claim: Claim, *, on_lost: Callable[[], None]) -> None:
        self.around = around
        self.claim = claim
        self._leases = Leases(around.database, around.times)
        self._on_lost = on_lost
        self._terminated = False

    def terminate(self) -> None:
        """Ask for a checkpoint and an orderly end at the next step."""
        self._terminated = True

    def run(self) -> None:
        """Do the job, and move it on; raises LeaseLost, and whatever nobody expected."""
        claim, leases = self.claim, self._leases
        job = self._patiently(
            lambda: leases.begin(claim, host=host_name(), reference=own_reference())
        )
        recorder = Recorder(
            leases,
            claim,
            job.run_id,
            heartbeat_seconds=self.around.times.heartbeat,
            on_lost=self._on_lost,
        )
        with recorder:
            try:
                if job.wish is Wish.RUN or not self._stopped(recorder):
                    self._do(job, recorder)
            except LeaseLost:
                raise
            except MemoryError:
                self._fail(
                    recorder,
                    "out_of_memory",
                    "There was not enough memory. Train again with a smaller network, batch_size "
                    "or window, or on a machine with more.",
                )
            except (InvalidInput, NotFound, TrainingFailed) as error:
                self._fail(recorder, error.code, error.message)
            except (StorageFailed, Overloaded) as error:
                self._release(recorder, error.code, error.message)

    def _do(self, job: Assignment, recorder: Recorder) -> None:
        around, claim, leases = self.around, self.claim, self._leases
        before = published_by(around.database, job.run_id)
        if before is not None:
            self._end(recorder, lambda: leases.succeed_as(claim, before))
            return
        run, base = self._prepared(job, recorder)
        savings = Savings(
            around.checkpoints,
            leases.checkpoints,
            claim,
            job.run_id,
            every_seconds=float(job.spec["training"]["checkpoint_every_seconds"]),
            tell=recorder.tell,
        )
        if not self._trained(job, run, recorder, savings, base):
            return
        self._patiently(recorder.flush)
        recorder.tell("measuring", "The network is measured on the text that was held out.")
        artifact = run.finish(lineage=_lineage(job), run_id=job.run_id)
        if not leases.to_publishing(claim):
            self._stopped(recorder)
            return
        staged = adopt(around.database, around.models, job.model, job.run_id)
        if staged is None:
            staged = around.registry.stage(job.model, artifact, job.run_id)
        file = staged
        self._end(
            recorder,
            lambda: publish(leases, around.registry, around.database, around.models, claim, file),
        )

    def _prepared(self, job: Assignment, recorder: Recorder) -> tuple[Run, Artifact | None]:
        """The corpus read, and the training as it was settled when the job was submitted."""
        around = self.around
        if job.dataset_id is None:
            raise NotFound("The job's dataset was deleted.", code="dataset_not_found")
        base = None
        if job.base_version is not None:
            base = around.registry.open(around.registry.resolve(job.base_version))
        dataset = around.datasets.get(job.dataset_id)
        asked = job.spec["training"]
        settled = Settled(
            NetworkConfig(**job.parameters["network"]),
            TrainingConfig(**{**job.parameters["training"], "plan": ()}),
            (),
        )
        wishes = Wishes(
            format=dataset.format,
            validation_fraction=asked["validation_fraction"],
            test_fraction=asked["test_fraction"],
            seed=asked["seed"],
        )
        with around.datasets.local(dataset) as path:
            run = plan(path, wishes, base=base, settled=settled)
        if run.prepared.profile.sha256 != dataset.sha256:
            raise InvalidInput(
                "The file of the dataset is not the one that was uploaded; upload it again.",
                code="dataset_changed",
            )
        recorder.tell(
            "prepared",
            f"{run.prepared.profile.characters:,} characters, "
            f"{run.network_config.parameters(len(run.prepared.vocabulary)):,} weights, on "
            f"{run.device.type}.",
        )
        return run, base

    def _trained(
        self, job: Assignment, run: Run, recorder: Recorder, savings: Savings, base: Artifact | None
    ) -> bool:
        """Train to the end; False if the attempt ended on the way, as somebody wanted."""
        checkpoint = savings.newest()
        step = checkpoint.step if checkpoint else 0
        recorder.wish = self._leases.take_up(self.claim, job.run_id, step, library_versions())
        savings.begin(run)
        progress = None
        for progress in run.train(checkpoint=checkpoint, base=base):
            recorder.add(progress)
            if recorder.wish is not Wish.RUN or self._terminated:
                recorder.add(progress, always=True)
                if self._ended_early(recorder, savings):
                    return False
            savings.save_if_due(progress)
        if progress is not None:
            recorder.add(progress, always=True)
            savings.save("final")
        return True

    def _ended_early(self, recorder: Recorder, savings: Savings) -> bool:
        """Pause, cancel or give the job back; False if it is to go on after all."""
        if recorder.wish is not Wish.CANCEL:
            savings.save("periodic")
        with suppress(Overloaded, StorageFailed):
            recorder.flush()
        if self._stopped(recorder):
            return True
        if self._terminated:
            told = "The training process was asked to end."
            self._release(recorder, "terminated", told, counted=False)
        return self._terminated

    def _stopped(self, recorder: Recorder) -> bool:
        """Pause or cancel, as is wanted; False if the job is to go on after all."""
        stopped = recorder.end(lambda: self._patiently(lambda: self._leases.stop(self.claim)))
        if not stopped:
            recorder.wish = self._leases.renew(self.claim)
        return stopped

    def _fail(self, recorder: Recorder, code: str, message: str) -> None:
        self._end(recorder, lambda: self._leases.fail(self.claim, code, message))

    def _release(
        self, recorder: Recorder, code: str, message: str, *, counted: bool = True
    ) -> None:
        self._end(
            recorder, lambda: self._leases.release(self.claim, code, message, counted=counted)
        )

    def _end(self, recorder: Recorder, act: Callable[[], object]) -> None:
        """Do what ends the attempt, with nobody writing beside it."""

        def done() -> bool:
            self._patiently(act)
            return True

        recorder.end(done)

    def _patiently(self, act: Callable[[], T]) -> T:
        """Do something; a database that is away is waited for as long as a lease."""
        times = self.around.times
        deadline = time.monotonic() + times.lease
        while True:
            try:
                return act()
            except Overloaded:
                if time.monotonic() > deadline:
                    raise
                time.sleep(times.heartbeat / 10)


def _lineage(job: Assignment) -> Lineage:
    said = job.spec["tags"].get("corpus")  # train --detach --corpus
    corpus = f"{said} (dataset {job.spec['dataset']})" if said else f"dataset {job.spec['dataset']}"
    return Lineage(corpus=corpus, base_model=job.base_version)


def surroundings(settings: Settings) -> Surroundings:
    """Everything by its URL, as the environment says."""
    database = Database(settings.resolved_database_url)
    models = BlobStore(settings.models_dir)
    return Surroundings(
        database=database,
        models=models,
        registry=Registry(database, models),
        datasets=open_datasets(settings, database),
        checkpoints=checkpoint_store(settings),
        times=Times(settings.lease_seconds),
    )


def main(arguments: list[str]) -> int:
    """Run the attempt that the arguments name."""
    job_id, number, token = arguments
    os.nice(_NICENESS)
    settings = Settings()
    torch.set_num_threads(settings.threads)
    attempt = Attempt(
        surroundings(settings),
        Claim(job_id, int(number), int(token)),
        on_lost=lambda: os._exit(LEASE_LOST),
    )
    signal.signal(signal.SIGTERM, lambda *_: attempt.terminate())
    try:
        attempt.run()
    except LeaseLost as error:
        sys.stderr.write(f"{error.message}\n")
        return LEASE_LOST
    except CharloomError as error:
        sys.stderr.write(f"{error.message}\n")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
