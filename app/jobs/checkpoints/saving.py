"""Decide when a training writes a checkpoint, and which one it resumes from.

Takes a training between two steps; writes the file first and its row second, then removes
the checkpoints that it replaces. If a checkpoint cannot be written (a full disk), an event
says so and the training continues: a crash would then cost more, but the result is safe.
"""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from ...charlm.checkpoint import Checkpoint
from ...charlm.training import Progress, Training
from ...errors import InvalidInput, NotFound, Overloaded, StorageFailed
from ...store.blobs import BlobStore
from ...training.trainer import Trainer
from ..values import CheckpointKind, Claim, Level
from .files import checkpoint_key, load_checkpoint, store_checkpoint
from .rows import CheckpointRows, NewCheckpoint

_BEST_AFTER: Final = 1 / 3  # of the time between checkpoints, if the network has improved


class Tell(Protocol):
    """Adds an event to the job."""

    def __call__(self, type: str, message: str, *, level: Level = "info") -> None: ...


class CheckpointSaver:
    """The checkpoints of one attempt; call ``begin`` before saving."""

    def __init__(
        self,
        blobs: BlobStore,
        rows: CheckpointRows,
        claim: Claim,
        run_id: str,
        *,
        every_seconds: float,
        tell: Tell,
    ) -> None:
        self._blobs, self._rows = blobs, rows
        self._claim, self._run_id = claim, run_id
        self._every = every_seconds
        self._tell = tell
        self._trainer: Trainer | None = None
        self._saved: tuple[int, CheckpointKind] | None = None
        self._saved_at = 0.0

    def newest(self) -> Checkpoint | None:
        """The furthest readable checkpoint; drops those that cannot be read.

        Raises LeaseLost, StorageFailed.
        """
        for info in self._rows.of(self._run_id):
            try:
                return load_checkpoint(self._blobs, info)
            except (InvalidInput, NotFound) as error:
                self._rows.drop(self._claim, info, error.message)
                self._blobs.remove([info.uri])  # or later, by Retention
        return None

    def begin(self, trainer: Trainer) -> None:
        """Save checkpoints of this training from now on."""
        self._trainer = trainer
        self._saved_at = time.monotonic()

    def save_if_due(self, progress: Progress) -> None:
        """Save when due, and earlier if the network has improved."""
        best = self._training.best
        improved = progress.validation is not None and best is not None
        improved = improved and best is not None and best.step == progress.step
        idle = time.monotonic() - self._saved_at
        if idle >= self._every or (improved and idle >= self._every * _BEST_AFTER):
            self.save("best" if improved else "periodic")

    def save(self, kind: CheckpointKind) -> None:
        """Write a checkpoint now, unless the same step was just written; raises LeaseLost."""
        training, claim = self._training, self._claim
        if self._saved == (training.step, kind):
            return
        self._saved_at = time.monotonic()
        try:
            key = checkpoint_key(self._run_id, claim.number, training.step, kind)
            blob = store_checkpoint(self._blobs, key, training.checkpoint())
            new = NewCheckpoint(
                step=training.step,
                epoch=training.epoch,
                kind=kind,
                uri=key,
                sha256=blob.sha256,
                size_bytes=blob.size_bytes,
                metrics=_metrics(training),
            )
            # Those that cannot be removed now have no row any more: Retention does it later.
            self._blobs.remove(self._rows.add(claim, self._run_id, new))
            self._saved = (training.step, kind)
        except (StorageFailed, Overloaded) as error:
            self._tell("checkpoint_failed", error.message, level="warning")

    @property
    def _training(self) -> Training:
        assert self._trainer is not None, "begin was not called"
        assert self._trainer.training is not None, "the training has not started"
        return self._trainer.training


def _metrics(training: Training) -> dict[str, Any]:
    best = training.best
    return {"best_validation_loss": best.nats, "best_step": best.step} if best else {}
