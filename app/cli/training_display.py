"""What ``charloom train`` shows: what was chosen, live progress, what was published."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..catalog.model_rows import ModelVersion
from ..charlm.training import Progress
from ..rendering.choices import choice_line, plan_choices
from ..training.planning import TrainingPlan
from ..training.profile import Profile
from . import console

_LINE_SECONDS: Final = 10.0  # between lines, where there is no terminal

Show = Callable[[Progress, float | None, str | None], None]
"""Shows progress with the validation's bits per character, or a sample instead."""


def explain(profile: Profile, plan: TrainingPlan) -> None:
    """Print what was found in the text and what was chosen for it."""
    console.err.print(
        f"{profile.characters:,} characters, {profile.records:,} lines, "
        f"{profile.symbols:,} distinct characters; read as {profile.format}."
    )
    for warning in profile.warnings:
        console.err.print(f"note: {warning}", markup=False)
    for each in plan_choices(plan):
        console.err.print(choice_line(each), markup=False)


@contextmanager
def progress_display() -> Iterator[Show]:
    """A progress bar on a terminal, elsewhere a line now and then."""
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


def report(version: ModelVersion) -> None:
    """Print what was published and how good it is."""
    card = version.card
    for split in ("validation", "test"):
        if measured := card.get(split):
            console.out.print(
                f"{split:<11} {measured['nats']:.4f} nats = "
                f"{measured['bits_per_character']:.4f} bits per character, "
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
