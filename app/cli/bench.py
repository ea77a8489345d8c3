"""``charloom bench``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..bounds import Bound
from .options import AsJson, command, within

ROWS: Final = (1, 4, 16, 64, 256)


def bench(
    model: Annotated[
        str | None, typer.Argument(help="A model in the store: names, names@3.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="An untrained network instead, such as lstm:2x512.")
    ] = None,
    rows: Annotated[
        str, typer.Option(help="Numbers of texts at once, separated by commas.")
    ] = ",".join(map(str, ROWS)),
    threads: Annotated[
        str, typer.Option(help="Numbers of processor threads, separated by commas.")
    ] = "1",
    seconds: Annotated[
        float,
        within(Bound(0.01, 3600), "Time of one round; each figure is the median of three."),
    ] = 0.3,
    precision: Annotated[str | None, typer.Option(help="int8 or float32.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a model's speed with a plain loop over nn.LSTM.

    Shows characters per second, writing and scoring. The floor is how fast the
    weights can be read (few rows) or multiplied (many rows).
    """
    from .benchmark import benchmark

    benchmark(
        model,
        shape,
        rows=rows,
        threads=threads,
        seconds=seconds,
        precision=precision,
        as_json=as_json,
    )


app = command(bench)
