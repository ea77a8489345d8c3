"""The work of ``charloom train``: from a text file to a published model, in this process."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
import typer

from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..charlm.device import pick_device
from ..charlm.schedule import DeviceName
from ..charlm.speed import measure_speed
from ..charlm.training import Progress
from ..errors import StorageFailed
from ..store.artifact import Artifact, chunks
from ..store.card import Lineage
from ..store.layout import SUFFIX
from ..training.planning import Wishes, plan_training
from ..training.prepare import Prepared, prepare
from ..training.trainer import Trainer
from ..wiring.environment import read_settings
from ..wiring.full import FullInstallation
from . import console
from .asked import Asked
from .interrupt import Interrupt, Interrupted, interruptible
from .training_display import explain, progress_display, report

_SAMPLE_SECONDS: Final = 15.0


def train_here(file: Path, asked: Asked, device: DeviceName, on_interrupt: Interrupted) -> None:
    """Prepare, plan, run, publish; raises what any of them raises."""
    settings, place = read_settings(), pick_device(device)
    wishes = Wishes(
        asked.network, asked.training, asked.validation_fraction, asked.test_fraction, asked.seed
    )
    lineage = Lineage.of(corpus=asked.corpus, command=_command(), base_model=asked.base_model)
    torch.set_num_threads(settings.threads)
    with FullInstallation(settings) as installation:
        registry = installation.registry
        registry.synchronise()
        registry.check_store()  # before the training, whose result could not be published
        version = registry.resolve(asked.base_model) if asked.base_model else None
        base = registry.open(version) if version else None
        prepared = _prepared(file, asked, base, installation.datasets.scratch_folder())
        speed = measure_speed(time.monotonic, place)
        plan = plan_training(prepared.profile, wishes, speed=speed, base=version)
        explain(prepared.profile, plan)
        trainer = Trainer(prepared, plan, place)
        with interruptible() as interrupt:
            artifact = _trained(trainer, base, lineage, interrupt, on_interrupt)
            published = _published(registry, asked.name, artifact)
    report(published)


def _prepared(file: Path, asked: Asked, base: Artifact | None, scratch: Path | None) -> Prepared:
    """The corpus of ``file``, with the format and vocabulary of the base, if there is one."""
    return prepare(
        file,
        format=asked.format or (base.card.corpus_format if base else None),
        validation_fraction=asked.validation_fraction,
        test_fraction=asked.test_fraction,
        seed=asked.seed,
        known=base.vocabulary if base else None,
        scratch=scratch,
    )


def _trained(
    trainer: Trainer,
    base: Artifact | None,
    lineage: Lineage,
    interrupt: Interrupt,
    on_interrupt: Interrupted,
) -> Artifact:
    """Train, then measure and calibrate; exits with 130 if Ctrl-C leaves nothing to publish."""
    whole = _watched(trainer, trainer.train(base=base), interrupt)
    if not whole and not _keep(trainer, on_interrupt):
        raise typer.Exit(130)
    interrupt.finish(patiently=on_interrupt is not Interrupted.discard)
    console.err.print("measuring, calibrating, publishing …")
    return trainer.finish(lineage=lineage)


def _published(local: Registry, name: str, artifact: Artifact) -> ModelVersion:
    try:
        return local.publish(name, artifact)
    except StorageFailed as error:
        raise _rescued(name, artifact, error) from error


def _rescued(name: str, artifact: Artifact, failure: StorageFailed) -> StorageFailed:
    """Save an artifact that the store refused among the temporary files; the error to raise."""
    try:
        with tempfile.NamedTemporaryFile(
            prefix=f"{name}-", suffix=SUFFIX, dir=tempfile.gettempdir(), delete=False
        ) as file:
            try:
                file.writelines(chunks(artifact))
            except OSError:
                Path(file.name).unlink()
                raise
    except OSError:
        return failure
    return StorageFailed(
        f"{failure.message} The trained model is kept in {file.name}: once the store works, "
        f"copy it there as {name}/NUMBER{SUFFIX}, with an unused number."
    )


def _command() -> str:
    """The command line; an argument may hold bytes that are no text, or control characters."""
    words = shlex.join(["charloom", *sys.argv[1:]])
    return "".join(c if c.isprintable() else "\ufffd" for c in words)[:1000]


def _watched(trainer: Trainer, steps: Iterator[Progress], interrupt: Interrupt) -> bool:
    """Train to the end and show the progress; False if Ctrl-C came first."""
    with progress_display() as show:
        validation, sampled = None, time.monotonic()
        for progress in steps:
            validation = progress.validation or validation
            show(progress, validation and validation.bits_per_character, None)
            if time.monotonic() - sampled > _SAMPLE_SECONDS:
                sampled = time.monotonic()
                show(progress, None, trainer.sample(seed=progress.step))
            if interrupt.came:
                assert trainer.training is not None
                trainer.training.measure()
                return False
    return True


def _keep(trainer: Trainer, on_interrupt: Interrupted) -> bool:
    """Whether to publish what an interrupted training has reached."""
    assert trainer.training is not None
    step = trainer.training.step
    if on_interrupt is not Interrupted.ask:
        return on_interrupt is Interrupted.publish
    if not sys.stdin.isatty():
        console.err.print(f"Stopped after {step:,} steps; nothing is published.")
        return False
    return typer.confirm(
        f"Stopped after {step:,} steps. Publish the best weights so far?", default=False
    )
