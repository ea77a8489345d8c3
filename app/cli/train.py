"""``charloom train``: from a text file to a published model, watched."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..catalog.model_rows import ModelVersion
from ..catalog.models import Registry
from ..charlm.cells import Cell
from ..charlm.corpus.windows import FRACTION_BOUNDS, CorpusFormat
from ..charlm.device import DeviceName, pick_device
from ..charlm.network_config import NETWORK_BOUNDS
from ..charlm.schedule import TRAINING_BOUNDS
from ..charlm.speed import measure_speed
from ..charlm.training import Progress
from ..errors import StorageFailed
from ..rendering.choices import choice_line, choice_objects
from ..settings import Settings
from ..store.artifact import Artifact, chunks
from ..store.blobs import explained
from ..store.card import Lineage
from ..store.layout import SUFFIX, checked_name
from ..training.planning import TrainingPlan, Wishes, plan_training
from ..training.prepare import Profile, prepare
from ..training.trainer import Trainer
from ..wiring.full import FullInstallation
from . import console
from .interrupt import Interrupt, interruptible
from .options import command, within
from .submitting import submit

_SAMPLE_SECONDS: Final = 15.0
_LINE_SECONDS: Final = 10.0  # between lines, where there is no terminal


class Interrupted(StrEnum):
    ask = "ask"
    publish = "publish"
    discard = "discard"


def train(
    file: Annotated[Path, typer.Argument(help="A UTF-8 text file.")],
    name: Annotated[str, typer.Option(help="The model's name; a name in use gets a version more.")],
    budget: Annotated[
        float,
        typer.Option(
            parser=console.duration, metavar="duration", help="How long to train: 90s, 3m, 1.5h."
        ),
    ] = "3m",  # type: ignore[assignment]  # goes through the parser
    format: Annotated[
        CorpusFormat | None,
        typer.Option(help="lines: a record a line; text: one running text. Default: guessed."),
    ] = None,
    cell: Annotated[Cell | None, typer.Option(help="Kind of network.")] = None,
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
        str | None, typer.Option(help="What the text is and where it is from, for the card.")
    ] = None,
    on_interrupt: Annotated[
        Interrupted, typer.Option(help="What Ctrl-C does with the best weights so far.")
    ] = Interrupted.ask,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Leave the training to a server; charloom jobs watches it."),
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="With --detach: a server's address, instead of local data.")
    ] = None,
) -> None:
    """Train on a text file and publish the model.

    Everything that is not said is chosen from the text's size and the budget.
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
            raise typer.BadParameter("does not go with --detach.", param_hint="--device")
        submit(file, _document(name, wishes, origin), format, url, console.settings())
    elif url is not None:
        raise typer.BadParameter("goes with --detach only.", param_hint="--url")
    else:
        _train_here(file, name, format, wishes, origin, pick_device(device), on_interrupt)


@dataclass(frozen=True)
class Origin:
    """Where a training comes from."""

    base_model: str | None
    corpus: str | None


def _document(name: str, wishes: Wishes, origin: Origin) -> dict[str, Any]:
    """The job that asks for the same."""
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
        version = registry.resolve(origin.base_model) if origin.base_model else None
        base = registry.open(version) if version else None
        prepared = prepare(
            file,
            format=format or (base.card.corpus_format if base else None),
            validation_fraction=wishes.validation_fraction,
            test_fraction=wishes.test_fraction,
            seed=wishes.seed,
            known=base.vocabulary if base else None,
            scratch=_scratch(settings),
        )
        speed = measure_speed(time.monotonic, device)
        plan = plan_training(prepared.profile, wishes, speed=speed, base=version)
        _explain(prepared.profile, plan)
        trainer = Trainer(prepared, plan, device)
        with interruptible() as interrupt:
            whole = _watched(trainer, trainer.train(base=base), interrupt)
            if not whole and not _keep(trainer, on_interrupt):
                raise typer.Exit(130)
            interrupt.finish(patiently=on_interrupt is not Interrupted.discard)
            console.err.print("measuring, calibrating, publishing …")
            lineage = Lineage(
                corpus=origin.corpus, command=_command(), base_model=origin.base_model
            )
            published = _published(registry, name, trainer.finish(lineage=lineage))
    _report(published)


def _published(local: Registry, name: str, artifact: Artifact) -> ModelVersion:
    try:
        return local.publish(name, artifact)
    except StorageFailed as error:
        raise _rescued(name, artifact, error) from error


def _rescued(name: str, artifact: Artifact, failure: StorageFailed) -> StorageFailed:
    """Keep a model that the store did not take where temporary files lie; what to say."""
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
        f"{failure.message} The trained model is kept in {file.name}: once that is mended, "
        f"put it into the store as {name}/NUMBER{SUFFIX}, with a number that is free."
    )


def _scratch(settings: Settings) -> Path:
    folder = settings.data_dir / "scratch"
    with explained("The scratch folder"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _command() -> str:
    return " ".join(["charloom", *sys.argv[1:]])[:1000]


def _explain(profile: Profile, plan: TrainingPlan) -> None:
    console.err.print(
        f"{profile.characters:,} characters, {profile.records:,} lines, "
        f"{profile.symbols:,} distinct characters; read as {profile.format}."
    )
    for warning in profile.warnings:
        console.err.print(f"note: {warning}", markup=False)
    for each in choice_objects(plan.chosen, plan.values):
        console.err.print(choice_line(each), markup=False)


def _watched(trainer: Trainer, steps: Iterator[Progress], interrupt: Interrupt) -> bool:
    """Train to the end, showing how it goes; False if Ctrl-C came first."""
    with _display() as show:
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


Show = Callable[[Progress, float | None, str | None], None]


@contextmanager
def _display() -> Iterator[Show]:
    """On a terminal a bar that moves, elsewhere a line now and then."""
    if not console.err.is_terminal:
        yield _plain()
        return
    with Live(console=console.err, refresh_per_second=8, transient=True) as live:

        def show(progress: Progress, bits: float | None, sample: str | None) -> None:
            if sample is not None:
                live.console.print(f"  … {console.printable(sample)!r}", style="dim", markup=False)
                return
            row = Table.grid(padding=(0, 1))
            row.add_row(
                ProgressBar(100, 100 * progress.fraction, width=30), _progress_line(progress, bits)
            )
            live.update(row)

        yield show


def _plain() -> Show:
    last = -_LINE_SECONDS

    def show(progress: Progress, bits: float | None, sample: str | None) -> None:
        nonlocal last
        if sample is not None:
            console.err.print(f"  … {sample!r}", markup=False)
        elif time.monotonic() - last >= _LINE_SECONDS or progress.fraction >= 1:
            last = time.monotonic()
            console.err.print(_progress_line(progress, bits), markup=False)

    return show


def _progress_line(progress: Progress, bits: float | None) -> str:
    validation = "-" if bits is None else f"{bits:.3f}"
    return (
        f"{progress.fraction:4.0%}  {console.clock(progress.eta_seconds)} left  "
        f"{progress.characters_per_second:,.0f} characters/s  "
        f"train {progress.train_loss:.3f} nats  validation {validation} bits/char"
    )


def _keep(trainer: Trainer, on_interrupt: Interrupted) -> bool:
    """Whether to publish what an interrupted training has reached."""
    assert trainer.training is not None
    step = trainer.training.step
    if on_interrupt is not Interrupted.ask:
        return on_interrupt is Interrupted.publish
    if not sys.stdin.isatty():
        console.err.print(f"Stopped after {step:,} steps; nothing is published.")
        return False
    return typer.confirm(f"Stopped after {step:,} steps. Publish the best so far?", default=False)


def _report(version: ModelVersion) -> None:
    card = version.card
    for split in ("validation", "test"):
        if measured := card.get(split):
            console.out.print(
                f"{split:<11} {measured['nats']:.4f} nats = "
                f"{measured['bits_per_character']:.4f} bits a character, "
                f"{measured['accuracy']:.1%} of characters predicted"
            )
    copied = card.get("verbatim_copy_rate")
    if copied is not None:
        console.out.print(f"samples copied from the training text: {copied:.1%}")
    console.out.print(
        f"published {version.id}: {card['cell']} {card['layers']} × {card['hidden_size']}, "
        f"{card['size_bytes'] / 1e6:.2f} MB, served in {card['serving_precision']}"
    )
    console.out.print(f"next: charloom generate {version.name} --count 5")


app = command(train)
