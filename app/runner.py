"""The runner, the process of one attempt: ``python -m app.runner JOB NUMBER TOKEN``.

Finds everything by the settings in its environment; trains, reports progress, writes
checkpoints, publishes once. It may be killed at any moment: the next attempt resumes from the
furthest readable checkpoint. It writes only while it holds its lease; when the lease is lost,
it ends at once. Exit codes: 0 the attempt was ended in the database (with any result), 3 the
lease was lost, 4 the database or a disk refused and could not even be told so (the last line of
the output says why), anything else a crash.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import torch

from .catalog.datasets import Datasets
from .catalog.models import Registry
from .database.session import Database
from .errors import (
    CharloomError,
    Conflict,
    InvalidInput,
    LeaseLost,
    NotFound,
    Overloaded,
    StorageFailed,
    TrainingFailed,
)
from .jobs.checkpoints.saving import CheckpointSaver
from .jobs.executors.command import CANNOT_STORE
from .jobs.executors.processes import RunnerProcess
from .jobs.preparing import lineage_of, plan_of, read_corpus
from .jobs.publishing import publish
from .jobs.recorder import Recorder
from .jobs.runner_door import Assignment, RunnerDoor
from .jobs.states import Wish
from .jobs.times import Times
from .jobs.values import Claim
from .store.artifact import Artifact
from .store.blobs import BlobStore
from .store.card import library_versions
from .training.trainer import Trainer
from .wiring.environment import read_settings
from .wiring.full import FullInstallation

LEASE_LOST: Final = 3
_NICENESS: Final = 10
_SAMPLE_SHARE: Final = 0.05
T = TypeVar("T")


class Surroundings(Protocol):
    """The parts of an installation that an attempt uses."""

    @property
    def database(self) -> Database: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def datasets(self) -> Datasets: ...
    @property
    def checkpoints(self) -> BlobStore: ...
    @property
    def times(self) -> Times: ...


class Attempt:
    """One attempt at one job, from start to end."""

    def __init__(self, around: Surroundings, claim: Claim, *, on_lost: Callable[[], None]) -> None:
        self.around = around
        self.claim = claim
        self._door = RunnerDoor(around.database, around.times)
        self._on_lost = on_lost
        self._terminated = False
        self._sampled = False

    def terminate(self) -> None:
        """Make the attempt write a checkpoint and end after the current step."""
        self._terminated = True

    def run(self) -> None:
        """Run the job and store its result; raises LeaseLost and unexpected errors."""
        claim, door = self.claim, self._door
        here = RunnerProcess.own()
        job = self._patiently(
            lambda: door.begin(claim, host=here.host, pid=here.pid, pid_started=here.started)
        )
        recorder = Recorder(
            door,
            claim,
            job.run_id,
            heartbeat_seconds=self.around.times.heartbeat,
            on_lost=self._on_lost,
        )
        with recorder:
            self._run_job(job, recorder)

    def _run_job(self, job: Assignment, recorder: Recorder) -> None:
        """Do the job; an expected error fails it or releases it to be tried again."""
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
                "or window, or on a machine with more memory.",
            )
        except (InvalidInput, NotFound, Conflict, TrainingFailed) as error:
            self._fail(recorder, error.code, error.message)
        except (StorageFailed, Overloaded) as error:
            self._release(recorder, error.code, error.message)

    def _do(self, job: Assignment, recorder: Recorder) -> None:
        """Train and publish, unless the run published before a crash or is stopped."""
        claim, door = self.claim, self._door
        before = self.around.registry.published_by(job.run_id)
        if before is not None:
            self._end(recorder, lambda: door.succeed_as(claim, before))
            return
        lineage = lineage_of(job)  # before training: it may be refused
        trainer, base = self._prepared(job, recorder)
        if not self._trained(job, trainer, recorder, self._saver(job, recorder), base):
            return
        self._patiently(recorder.flush)
        recorder.tell("measuring", "The network is being measured on held-out text.")
        artifact = trainer.finish(lineage=lineage, run_id=job.run_id)
        if door.to_publishing(claim):
            self._publish(job, artifact, recorder)
        else:
            self._stopped(recorder)

    def _saver(self, job: Assignment, recorder: Recorder) -> CheckpointSaver:
        return CheckpointSaver(
            self.around.checkpoints,
            self._door.checkpoints,
            self.claim,
            job.run_id,
            every_seconds=float(job.spec["training"]["checkpoint_every_seconds"]),
            tell=recorder.tell,
        )

    def _publish(self, job: Assignment, artifact: Artifact, recorder: Recorder) -> None:
        """Publish the file that a crashed attempt left, or else this artifact."""
        registry = self.around.registry
        staged = registry.left_by(job.run_id, job.model)
        if staged is None:
            staged = registry.stage(job.model, artifact, job.run_id)
        file = staged
        self._end(recorder, lambda: publish(self._door, registry, self.claim, file))

    def _prepared(self, job: Assignment, recorder: Recorder) -> tuple[Trainer, Artifact | None]:
        """A trainer for the job's plan, and the artifact that it starts from."""
        registry = self.around.registry
        base = registry.open(registry.resolve(job.base_version)) if job.base_version else None
        plan = plan_of(job)
        prepared = read_corpus(self.around.datasets, job, base.vocabulary if base else None)
        trainer = Trainer(prepared, plan)
        recorder.tell(
            "prepared",
            f"{prepared.profile.characters:,} characters, "
            f"{plan.network.parameters(len(prepared.vocabulary)):,} weights, on "
            f"{trainer.device.type}.",
        )
        return trainer, base

    def _trained(
        self,
        job: Assignment,
        trainer: Trainer,
        recorder: Recorder,
        saver: CheckpointSaver,
        base: Artifact | None,
    ) -> bool:
        """Train to the end; False if the attempt ended early (paused, cancelled, terminated)."""
        checkpoint = saver.newest()
        step = checkpoint.step if checkpoint else 0
        recorder.wish = self._door.take_up(self.claim, job.run_id, step, library_versions())
        saver.begin(trainer)
        progress, next_sample = None, 0.0
        for progress in trainer.train(checkpoint=checkpoint, base=base):
            recorder.add(progress)
            if progress.validation is not None and time.monotonic() >= next_sample:
                next_sample = self._show(progress.step, trainer, recorder)
            if recorder.wish is not Wish.RUN or self._terminated:
                recorder.add(progress, always=True)
                if self._ended_early(recorder, saver):
                    return False
            saver.save_if_due(progress)
        if progress is not None:
            recorder.add(progress, always=True)
            saver.save("final")
        return True

    def _show(self, step: int, trainer: Trainer, recorder: Recorder) -> float:
        """Record what the network writes now; returns when the next may be taken.

        Never raises: a sample must not end a training. After the first, which compiles, they
        take at most 5 % of its time.
        """
        began = time.monotonic()
        try:
            recorder.show(step, trainer.written())
        except Exception:  # noqa: BLE001
            traceback.print_exc()  # the output of a process that crashes is in the job's events
        ended = time.monotonic()
        first, self._sampled = not self._sampled, True
        return ended if first else ended + (ended - began) / _SAMPLE_SHARE  # the first compiles

    def _ended_early(self, recorder: Recorder, saver: CheckpointSaver) -> bool:
        """Pause, cancel or give the job back; False if training continues after all."""
        if recorder.wish is not Wish.CANCEL:
            saver.save("periodic")
        with suppress(Overloaded, StorageFailed):
            recorder.flush()
        if self._stopped(recorder):
            return True
        if self._terminated:
            message = "The training process was asked to stop."
            self._release(recorder, "terminated", message, counted=False)
        return self._terminated

    def _stopped(self, recorder: Recorder) -> bool:
        """Pause or cancel, as requested; False if the job continues after all."""
        stopped = recorder.end(lambda: self._patiently(lambda: self._door.stop(self.claim)))
        if not stopped:
            recorder.wish = self._door.renew(self.claim)
        return stopped

    def _fail(self, recorder: Recorder, code: str, message: str) -> None:
        self._end(recorder, lambda: self._door.fail(self.claim, code, message))

    def _release(
        self, recorder: Recorder, code: str, message: str, *, counted: bool = True
    ) -> None:
        self._end(recorder, lambda: self._door.release(self.claim, code, message, counted=counted))

    def _end(self, recorder: Recorder, act: Callable[[], object]) -> None:
        """Run ``act``, which ends the attempt, while the recorder does not write."""

        def done() -> bool:
            self._patiently(act)
            return True

        recorder.end(done)

    def _patiently(self, act: Callable[[], T]) -> T:
        """Run ``act``; while the database is away, retry for as long as a lease."""
        times = self.around.times
        deadline = time.monotonic() + times.lease
        while True:
            try:
                return act()
            except Overloaded:
                if time.monotonic() > deadline:
                    raise
                time.sleep(times.heartbeat / 10)


def main(arguments: list[str]) -> int:
    """Run the attempt that the arguments name."""
    job_id, number, token = arguments
    os.nice(_NICENESS)
    settings = read_settings()
    torch.set_num_threads(settings.threads)
    attempt = Attempt(
        # The server has migrated; a runner of an older server must not.
        FullInstallation(settings, migrate=False),
        Claim(job_id, int(number), int(token)),
        on_lost=lambda: os._exit(LEASE_LOST),
    )
    signal.signal(signal.SIGTERM, lambda *_: attempt.terminate())
    try:
        attempt.run()
    except LeaseLost as error:
        _say(error.message)
        return LEASE_LOST
    except (StorageFailed, Overloaded) as error:
        _say(error.message)
        return CANNOT_STORE
    except CharloomError as error:
        _say(error.message)
        raise
    return 0


def _say(message: str) -> None:
    """Write a line to the output, unbuffered: it may be a file on a disk that is full."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{message}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
