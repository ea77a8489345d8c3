"""What a job costs beyond the bare training loop: recording, heartbeats, checkpoints.

Part of ``python -m benchmarks.jobs``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from app.charlm.network_config import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.jobs.values import Job
from app.runner import Attempt
from app.training.planning import TrainingPlan
from app.training.prepare import prepare
from app.training.trainer import Trainer
from tests.jobs.making import Place

NETWORK: Final = {"cell": "lstm", "layers": 1, "hidden_size": 192, "embedding_size": 64}
STEPS: Final = 2_000
CHECKPOINT_SECONDS: Final = 15
_PLANNED: Final = ("max_steps", "batch_size", "window", "learning_rate", "optimizer", "clip_norm")


class Timed(Attempt):
    """An attempt that measures how long its training took, and how much of that was overhead.

    ``took``: seconds and processor seconds of the training. ``beside``: seconds that it
    waited for recording and checkpoints.
    """

    took = (0.0, 0.0)
    beside = 0.0

    def _trained(self, job: Any, trainer: Any, recorder: Any, saver: Any, base: Any) -> bool:
        recorder.add = self._counted(recorder.add)
        saver.save_if_due = self._counted(saver.save_if_due)
        began, used = time.perf_counter(), time.process_time()
        trained = super()._trained(job, trainer, recorder, saver, base)
        self.took = time.perf_counter() - began, time.process_time() - used
        return trained

    def _counted(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return act(*arguments, **named)
            finally:
                self.beside += time.perf_counter() - began

        return counted


def measure_overhead(place: Place, repeats: int) -> str:
    """Compare a job's training with the bare loop; they take turns in this process."""
    torch.set_num_threads(1)
    file = place.settings.data_dir / "text.txt"
    file.write_text(Path(__file__).read_text() * 40)
    dataset = place.datasets.add(file, "text", "text")
    spec = {"max_steps": STEPS, "batch_size": 16, "window": 64}
    spec |= {"checkpoint_every_seconds": CHECKPOINT_SECONDS}
    jobs, bare, beside = [], [], []
    for _ in range(repeats):
        job = place.submitted(spec, network=NETWORK, dataset=dataset.id)
        bare.append(_bare(job, file))
        claim = place.queue.claim("bench", "local")
        assert claim is not None
        attempt = Timed(place, claim, on_lost=lambda: os._exit(3))
        attempt.run()
        jobs.append(attempt.took)
        beside.append(attempt.beside / attempt.took[0])
    seconds = min(took for took, _ in jobs) / min(took for took, _ in bare) - 1
    processor = min(used for _, used in jobs) / min(used for _, used in bare) - 1
    return (
        f"recording and checkpoints take {statistics.median(beside):.2%} of the training's time; "
        f"in all {seconds:+.1%} time, {processor:+.1%} processor time: {min(jobs)[0]:.2f} s as a "
        f"job, {min(bare)[0]:.2f} s bare (minimum of {repeats}, taking turns; "
        f"{STEPS} steps, lstm 1 × 192, checkpoint every {CHECKPOINT_SECONDS} s)"
    )


def _bare(job: Job, file: Path) -> tuple[float, float]:
    asked = job.spec["training"]
    plan = TrainingPlan(
        NetworkConfig(**job.spec["network"]),
        TrainingConfig(**{name: asked[name] for name in _PLANNED}),
    )
    prepared = prepare(
        file,
        format="text",
        validation_fraction=asked["validation_fraction"],
        test_fraction=asked["test_fraction"],
    )
    trainer = Trainer(prepared, plan)
    began, used = time.perf_counter(), time.process_time()
    for _ in trainer.train():
        pass
    return time.perf_counter() - began, time.process_time() - used
