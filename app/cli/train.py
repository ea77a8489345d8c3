"""``charloom train``: from a text file to a published model."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..charlm.cells import Cell
from ..charlm.corpus.format import FRACTION_BOUNDS, CorpusFormat
from ..charlm.device import DeviceName, pick_device
from ..charlm.network_config import NETWORK_BOUNDS
from ..charlm.schedule import TRAINING_BOUNDS
from ..charlm.speed import measure_speed
from ..charlm.training import Progress
from ..errors import StorageFailed
from ..settings import Settings
from ..store.artifact import Artifact, chunks
from ..store.blobs import explained
from ..store.card import Lineage
from ..store.layout import SUFFIX, checked_name
from ..training.planning import Wishes, plan_training
from ..training.prepare import Prepared, prepare
from ..training.trainer import Trainer
from ..wiring.full import FullInstallation
from . import console
from .interrupt import Interrupt, interruptible
from .options import command, within
from .submitting import submit
from .training_display import explain, progress_display, report

_SAMPLE_SECONDS: Final = 15.0


class Interrupted(StrEnum):
    ask = "ask"
    publish = "publish"
    discard = "discard"


def train(
    file: Annotated[Path, typer.Argument(help="A UTF-8 text file.")],
    name: Annotated[str, typer.Option(help="The model's name; a name in use gets a new version.")],
    budget: Annotated[
        float,
        typer.Option(
            parser=console.duration, metavar="duration", help="How long to train: 90s, 3m, 1.5h."
        ),
    ] = "3m",  # type: ignore[assignment]  # goes through the parser
    format: Annotated[
        CorpusFormat | None,
        typer.Option(help="lines: one record per line; text: one running text. Default: guessed."),
    ] = None,
    cell: Annotated[Cell | None, typer.Option(help="Kind of recurrent cell.")] = None,
    layers: Annotated[int | None, within(NETWORK_BOUNDS["layers"])] = None,
    hidden_size: Annotated[int | None, within(NETWORK_BOUNDS["hidden_size"])] = None,
    dropout: Annotated[float | None, within(NETWORK_BOUNDS["dropout"])] = None,
    learning_rate: Annotated[float | None, within(TRAINING_BOUNDS["learning_rate"])] = None,
    validation_fraction: Annotated[float, within(FRACTION_BOUNDS["validation_fraction"])] = 0.05,
    test_fraction: Annotated[float, within(FRACTION_BOUNDS["test_fraction"])] = 0.05,
    seed: Annotated[int, within(TRAINING_BOUNDS["seed"])] = 1,
    device: Annotated[DeviceName, typer.Option(help="Where to train.")] = "auto",
    base_model: Annotated[
        str | None, typer.Option(help="Start from this published model's weights.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="A note on the text and its source, stored with the model.")
    ] = None,
    on_interrupt: Annotated[
        Interrupted, typer.Option(help="What Ctrl-C does with the best weights so far.")
    ] = Interrupted.ask,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Have a server train it; follow it with charloom jobs."),
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="With --detach: submit to the server at this address.")
    ] = None,
) -> None:
    """Train on a text file and publish the model.

    What you leave out is chosen from the text's size and the budget.
    """
    checked_name(name)
    wishes = Wishes(
        network={"cell": cell, "layers": layers, "hidden_size": hidden_size, "dropout": dropout},
        training={"budget_seconds": budget, "learning_rate": learning_rate},
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    origin = Origin(base_model, corpus)
    if detach:
        if device != "auto":
            raise typer.BadParameter("cannot be combined with --detach.", param_hint="--device")
        submit(file, _document(name, wishes, origin), format, url, console.settings())
    elif url is not None:
        raise typer.BadParameter("needs --detach.", param_hint="--url")
    else:
        _train_here(file, name, format, wishes, origin, pick_device(device), on_interrupt)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, for its card."""

    base_model: str | None
    corpus: str | None


def _document(name: str, wishes: Wishes, origin: Origin) -> dict[str, Any]:
    """The same training, as a job to submit."""
    training = {
        **wishes.training,
        "validation_fraction": wishes.validation_fraction,
        "test_fraction": wishes.test_fraction,
        "seed": wishes.seed,
    }
    tags = {} if origin.corpus is None else {"corpus": origin.corpus}
    return {
        "model": name,
        "network": wishes.network,
        "training": {key: value for key, value in training.items() if value is not None},
        "base_model": origin.base_model,
        "tags": tags,
    }


def _train_here(
    file: Path,
    name: str,
    format: CorpusFormat | None,
    wishes: Wishes,
    origin: Origin,
    device: torch.device,
    on_interrupt: Interrupted,
) -> None:
    """Prepare, plan, run, publish."""
    settings = console.settings()
    torch.set_num_threads(settings.threads)
    with FullInstallation(settings) as installation:
        registry = installation.registry
        registry.synchronise()
        lineage = Lineage.of(corpus=origin.corpus, command=_command(), base_model=origin.base_model)
        version = registry.resolve(origin.base_model) if origin.base_model else None
        base = registry.open(version) if version else None
        prepared = _prepared(file, format, wishes, base, _scratch(settings))
        speed = measure_speed(time.monotonic, device)
        plan = plan_training(prepared.profile, wishes, speed=speed, base=version)
        explain(prepared.profile, plan)
        trainer = Trainer(prepared, plan, device)
        with interruptible() as interrupt:
            artifact = _trained(trainer, base, lineage, interrupt, on_interrupt)
            published = _published(registry, name, artifact)
    report(published)


def _prepared(
    file: Path,
    format: CorpusFormat | None,
    wishes: Wishes,
    base: Artifact | None,
    scratch: Path,
) -> Prepared:
    """The corpus of ``file``, with the format and vocabulary of the base, if there is one."""
    return prepare(
        file,
        format=format or (base.card.corpus_format if base else None),
        validation_fraction=wishes.validation_fraction,
        test_fraction=wishes.test_fraction,
        seed=wishes.seed,
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


def _scratch(settings: Settings) -> Path:
    folder = settings.data_dir / "scratch"
    with explained("The scratch folder"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


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


app = command(train)
