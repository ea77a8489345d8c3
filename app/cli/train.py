"""``charloom train``: from a text file to a published model, watched."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from app.charlm.device import DeviceName
from app.charlm.network import Cell
from app.charlm.training import Progress
from app.charlm.windows import CorpusFormat
from app.cli import console, jobs
from app.cli.interrupt import Interrupt, interruptible
from app.cli.sources import registry
from app.errors import StorageFailed
from app.jobs.training_run import Run, Wishes, plan
from app.registry import ModelVersion, Registry
from app.settings import Settings
from app.store.artifact import Artifact, chunks
from app.store.blobs import explained
from app.store.card import Lineage
from app.store.layout import SUFFIX, checked_name

_SAMPLE_SECONDS: Final = 15.0
_LINE_SECONDS: Final = 10.0  # between lines, where there is no terminal
_MOST_SEED: Final = 2**63 - 1


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
    layers: Annotated[int | None, typer.Option(min=1, max=15)] = None,
    hidden_size: Annotated[int | None, typer.Option(min=1, max=8192)] = None,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.95)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, max=100)] = None,
    validation_fraction: Annotated[float, typer.Option(min=0.001, max=0.5)] = 0.05,
    test_fraction: Annotated[float, typer.Option(min=0, max=0.5)] = 0.05,
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED)] = 1,
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
    settings = console.settings()
    torch.set_num_threads(settings.threads)
    network = {"cell": cell, "layers": layers, "hidden_size": hidden_size,
               "dropout": dropout}  # fmt: skip
    training = {"budget_seconds": budget, "learning_rate": learning_rate}
    if detach:
        if device != "auto":
            raise typer.BadParameter("does not go with --detach.", param_hint="--device")
        training |= {"validation_fraction": validation_fraction, "test_fraction": test_fraction,
                     "seed": seed}  # fmt: skip
        asked = {"model": name, "network": network, "training": _given(training),
                 "base_model": base_model, "tags": _given({"corpus": corpus})}  # fmt: skip
        jobs.submit(file, asked, format, url)
        return
    if url is not None:
        raise typer.BadParameter("goes with --detach only.", param_hint="--url")
    wishes = Wishes(
        format=format,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        network=_given(network),
        training=_given(training),
        device=device,
        seed=seed,
    )
    with registry(settings) as local:
        base = local.open(local.resolve(base_model)) if base_model else None
        run = plan(file, wishes, scratch=_scratch(settings), base=base)
        _explain(run)
        with interruptible() as interrupt:
            whole = _watched(run, run.train(base=base), interrupt)
            if not whole and not _keep(run, on_interrupt):
                raise typer.Exit(130)
            interrupt.finish(patiently=on_interrupt is not Interrupted.discard)
            console.err.print("measuring, calibrating, publishing …")
            lineage = Lineage(corpus=corpus, command=_command(), base_model=base_model)
            published = _published(local, name, run.finish(lineage=lineage))
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


def _given(wishes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wishes.items() if value is not None}


def _scratch(settings: Settings) -> Path:
    folder = settings.data_dir / "scratch"
    with explained("The scratch folder"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _command() -> str:
    return " ".join(["charloom", *sys.argv[1:]])[:1000]


def _explain(run: Run) -> None:
    profile = run.prepared.profile
    console.err.print(
        f"{profile.characters:,} characters, {profile.records:,} lines, "
        f"{profile.symbols:,} distinct characters; read as {profile.format}."
    )
    for warning in profile.warnings:
        console.err.print(f"note: {warning}", markup=False)
    for each in run.chosen:
        console.err.print(f"  {each.name:<14} {each.value:<18} {each.reason}", markup=False)


def _watched(run: Run, steps: Iterator[Progress], interrupt: Interrupt) -> bool:
    """Train to the end, showing how it goes; False if Ctrl-C came first."""
    with _display() as show:
        validation, sampled = None, time.monotonic()
        for progress in steps:
            validation = progress.validation or validation
            show(progress, validation and validation.bits_per_character, None)
            if time.monotonic() - sampled > _SAMPLE_SECONDS:
                sampled = time.monotonic()
                show(progress, None, run.sample(seed=progress.step))
            if interrupt.came:
                assert run.training is not None
                run.training.measure()
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
            row.add_row(ProgressBar(100, 100 * progress.fraction, width=30), _told(progress, bits))
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
            console.err.print(_told(progress, bits), markup=False)

    return show


def _told(progress: Progress, bits: float | None) -> str:
    validation = "-" if bits is None else f"{bits:.3f}"
    return (
        f"{progress.fraction:4.0%}  {console.clock(progress.eta_seconds)} left  "
        f"{progress.characters_per_second:,.0f} characters/s  "
        f"train {progress.train_loss:.3f} nats  validation {validation} bits/char"
    )


def _keep(run: Run, on_interrupt: Interrupted) -> bool:
    """Whether to publish what an interrupted training has reached."""
    assert run.training is not None
    step = run.training.step
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
                f"{measured['accuracy']:.1%} of characters foretold"
            )
    copied = card.get("verbatim_copy_rate")
    if copied is not None:
        console.out.print(f"samples copied from the training text: {copied:.1%}")
    console.out.print(
        f"published {version.id}: {card['cell']} {card['layers']} × {card['hidden_size']}, "
        f"{card['size_bytes'] / 1e6:.2f} MB, served in {card['serving_precision']}"
    )
    console.out.print(f"next: charloom generate {version.name} --count 5")
