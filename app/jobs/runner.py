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
from typing import Any, Final

import torch

from app.charlm.checkpoint import Checkpoint
from app.charlm.network import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.charlm.training import Progress
from app.database.session import Database
from app.dataset_store import Datasets
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
from app.jobs.checkpoints import checkpoint_key, load_checkpoint, store_checkpoint
from app.jobs.executors import host_name, own_reference
from app.jobs.leases import Assignment, Leases, NewCheckpoint
from app.jobs.publishing import adopt, publish, published_by
from app.jobs.queue import Claim
from app.jobs.reading import read_checkpoints
from app.jobs.recorder import Recorder
from app.jobs.settling import Settled
from app.jobs.sources import DatasetSource
from app.jobs.states import Wish
from app.jobs.times import Times
from app.jobs.training_run import Run, Wishes, plan
from app.jobs.values import CheckpointKind
from app.registry import Registry
from app.settings import Settings
from app.store.artifact import Artifact, Lineage
from app.store.blobs import BlobStore
from app.store.card import library_versions

LEASE_LOST: Final = 3
_NICENESS: Final = 10


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
        self._saved: tuple[int, CheckpointKind] | None = None
        self._saved_at = time.monotonic()

    def terminate(self) -> None:
        """Ask for a checkpoint and an orderly end at the next step."""
        self._terminated = True

    def run(self) -> None:
        """Do the job, and move it on; raises LeaseLost, and whatever nobody expected."""
        claim, leases = self.claim, self._leases
        job = leases.begin(claim, host=host_name(), reference=own_reference())
        recorder = Recorder(
            leases,
            claim,
            job.run_id,
            heartbeat_seconds=self.around.times.heartbeat,
            on_lost=self._on_lost,
        )
        with recorder:
            try:
                self._do(job, recorder)
            except LeaseLost:
                raise
            except MemoryError:
                leases.fail(
                    claim,
                    "out_of_memory",
                    "There was not enough memory. Train again with a smaller network, batch_size "
                    "or window, or on a machine with more.",
                )
            except (InvalidInput, NotFound, TrainingFailed) as error:
                leases.fail(claim, error.code, error.message)
            except (StorageFailed, Overloaded) as error:
                code, message = error.code, error.message
                self._patiently(lambda: leases.release(claim, code, message))

    def _do(self, job: Assignment, recorder: Recorder) -> None:
        before = published_by(self.around.database, job.run_id)
        if before is not None:
            self._leases.succeed_as(self.claim, before)
            return
        run, base = self._prepared(job, recorder)
        checkpoint = self._newest_checkpoint(job)
        step = checkpoint.step if checkpoint else 0
        self._leases.take_up(self.claim, job.run_id, step, library_versions())
        if not self._trained(job, run, recorder, checkpoint, base):
            return
        recorder.flush()
        recorder.tell("measuring", "The network is measured on the text that was held out.")
        artifact = run.finish(lineage=_lineage(job), run_id=job.run_id)
        if not self._leases.to_publishing(self.claim):
            self._stop(recorder)
            return
        around = self.around
        staged = adopt(around.database, around.models, job.model, job.run_id)
        if staged is None:
            staged = around.registry.stage(job.model, artifact, job.run_id)
        self._patiently(lambda: publish(self._leases, around.registry, self.claim, staged))

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

    def _newest_checkpoint(self, job: Assignment) -> Checkpoint | None:
        """The furthest checkpoint that can be read; those that cannot are dropped."""
        with self.around.database.session(read_only=True) as session:
            known = read_checkpoints(session, job.run_id)
        for info in known:
            try:
                return load_checkpoint(self.around.checkpoints, info)
            except (InvalidInput, NotFound) as error:
                self._leases.drop_checkpoint(self.claim, info, error.message)
                self.around.checkpoints.delete(info.uri)
        return None

    def _trained(
        self,
        job: Assignment,
        run: Run,
        recorder: Recorder,
        checkpoint: Checkpoint | None,
        base: Artifact | None,
    ) -> bool:
        """Train to the end; False if the attempt ended on the way, as somebody wanted."""
        every = float(job.spec["training"]["checkpoint_every_seconds"])
        self._saved_at = time.monotonic()
        progress = None
        for progress in run.train(checkpoint=checkpoint, base=base):
            recorder.add(progress)
            if recorder.wish is not Wish.RUN or self._terminated:
                recorder.add(progress, always=True)
                if self._ended_early(job, run, recorder, progress):
                    return False
            idle = time.monotonic() - self._saved_at
            improved = progress.validation is not None and _is_best(run, progress)
            if idle >= every or (improved and idle >= every / 3):
                self._save(job, run, recorder, "best" if improved else "periodic")
        if progress is not None:
            recorder.add(progress, always=True)
            self._save(job, run, recorder, "final")
        return True

    def _ended_early(
        self, job: Assignment, run: Run, recorder: Recorder, progress: Progress
    ) -> bool:
        """Pause, cancel or give the job back; False if it is to go on after all."""
        if recorder.wish is not Wish.CANCEL:
            self._save(job, run, recorder, "periodic")
        with suppress(Overloaded, StorageFailed):
            recorder.flush()
        if self._stop(recorder):
            return True
        if self._terminated:
            self._leases.release(
                self.claim, "terminated", "The training process was asked to end.", counted=False
            )
            return True
        return False

    def _stop(self, recorder: Recorder) -> bool:
        stopped = self._leases.stop(self.claim)
        if not stopped:
            recorder.wish = self._leases.renew(self.claim)
        return stopped

    def _save(self, job: Assignment, run: Run, recorder: Recorder, kind: CheckpointKind) -> None:
        """Write a checkpoint; what prevents it is told, and the training goes on."""
        training = run.training
        assert training is not None
        if self._saved == (training.step, kind):
            return
        around, claim = self.around, self.claim
        self._saved_at = time.monotonic()
        try:
            key = checkpoint_key(job.run_id, claim.number, training.step, kind)
            blob = store_checkpoint(around.checkpoints, key, training.checkpoint())
            new = NewCheckpoint(
                training.step, training.epoch, kind, key, blob.sha256, blob.size_bytes,
                _metrics(run),
            )  # fmt: skip
            for superfluous in self._leases.add_checkpoint(claim, job.run_id, new):
                around.checkpoints.delete(superfluous)
            self._saved = (training.step, kind)
        except (StorageFailed, Overloaded) as error:
            recorder.tell("checkpoint_failed", error.message, level="warning")

    def _patiently(self, write: Callable[[], Any]) -> None:
        """Do what ends the job; a database that is away is waited for as long as a lease."""
        times = self.around.times
        deadline = time.monotonic() + times.lease
        while True:
            try:
                write()
            except Overloaded:
                if time.monotonic() > deadline:
                    raise
                time.sleep(times.heartbeat / 10)
            else:
                return


def _is_best(run: Run, progress: Progress) -> bool:
    best = run.training.best if run.training else None
    return best is not None and best.step == progress.step


def _metrics(run: Run) -> dict[str, Any]:
    best = run.training.best if run.training else None
    return {"best_validation_loss": best.nats, "best_step": best.step} if best else {}


def _lineage(job: Assignment) -> Lineage:
    return Lineage(corpus=f"dataset {job.spec['dataset']}", base_model=job.base_version)


def surroundings(settings: Settings) -> Surroundings:
    """Everything by its URL, as the environment says."""
    database = Database(settings.resolved_database_url)
    models = BlobStore(settings.models_dir)
    return Surroundings(
        database=database,
        models=models,
        registry=Registry(database, models),
        datasets=Datasets(database, BlobStore(str(settings.data_dir / "datasets"))),
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
