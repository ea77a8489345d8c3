"""``charloom train``: from a text file to a published model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..charlm.cells import Cell
from ..charlm.corpus.format import DEFAULT_FRACTION, FRACTION_BOUNDS, CorpusFormat
from ..charlm.network_config import NETWORK_BOUNDS
from ..charlm.schedule import DEFAULT_BUDGET_SECONDS, TRAINING_BOUNDS, DeviceName
from ..store.layout import checked_name
from ..wiring.environment import read_settings
from . import console
from .asked import Asked
from .interrupt import Interrupted
from .options import command, within


def train(
    file: Annotated[Path, typer.Argument(help="A UTF-8 text file.")],
    name: Annotated[str, typer.Option(help="The model's name; a name in use gets a new version.")],
    budget: Annotated[
        float,
        typer.Option(
            parser=console.duration, metavar="duration", help="How long to train: 90s, 3m, 1.5h."
        ),
    ] = f"{DEFAULT_BUDGET_SECONDS / 60:g}m",  # type: ignore[assignment]  # goes through the parser
    format: Annotated[
        CorpusFormat | None,
        typer.Option(help="lines: one record per line; text: one running text. Default: guessed."),
    ] = None,
    cell: Annotated[Cell | None, typer.Option(help="Kind of recurrent cell.")] = None,
    layers: Annotated[int | None, within(NETWORK_BOUNDS["layers"])] = None,
    hidden_size: Annotated[int | None, within(NETWORK_BOUNDS["hidden_size"])] = None,
    dropout: Annotated[float | None, within(NETWORK_BOUNDS["dropout"])] = None,
    learning_rate: Annotated[float | None, within(TRAINING_BOUNDS["learning_rate"])] = None,
    validation_fraction: Annotated[
        float, within(FRACTION_BOUNDS["validation_fraction"])
    ] = DEFAULT_FRACTION,
    test_fraction: Annotated[float, within(FRACTION_BOUNDS["test_fraction"])] = DEFAULT_FRACTION,
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
    if url is not None and not detach:
        raise typer.BadParameter("needs --detach.", param_hint="--url")
    if detach and device != "auto":
        raise typer.BadParameter("cannot be combined with --detach.", param_hint="--device")
    asked = Asked(
        name=name,
        network={"cell": cell, "layers": layers, "hidden_size": hidden_size, "dropout": dropout},
        training={"budget_seconds": budget, "learning_rate": learning_rate},
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        format=format,
        base_model=base_model,
        corpus=corpus,
    )
    if detach:
        from .submitting import submit

        submit(file, asked, url, read_settings())
    else:
        from .training import train_here

        train_here(file, asked, device, on_interrupt)


app = command(train)
