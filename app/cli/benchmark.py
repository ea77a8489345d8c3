"""The work of ``charloom bench``: a model's speed beside a plain loop's, as a table or JSON."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import torch
from rich.table import Table

from ..charlm.cells import Cell
from ..charlm.network import CharNetwork
from ..charlm.network_config import NetworkConfig
from ..charlm.number_format import PRECISIONS, Precision
from ..engine.bench import Result, measure
from ..errors import InvalidInput
from ..wiring.environment import read_settings
from ..wiring.full import FullInstallation
from . import console

_SYMBOLS = 100
_COLUMNS = ("", "rows", "threads", "engine", "plain loop", "times", "floor", "reached")


def benchmark(
    model: str | None,
    shape: str | None,
    *,
    rows: str,
    threads: str,
    seconds: float,
    precision: str | None,
    as_json: bool,
) -> None:
    """Measure and print. Raises InvalidInput, UnknownModel."""
    network, own = _network(model, shape)
    chosen = own if precision is None else _precision(precision)
    results = measure(
        network,
        chosen,
        rows=_numbers("rows", rows),
        threads=_numbers("threads", threads),
        seconds=seconds,
    )
    _show(f"{model or shape}, {_described(network)}, {chosen}", results, as_json)


def _show(name: str, results: Iterable[Result], as_json: bool) -> None:
    if as_json:
        found = [_fields(each) for each in results]
        document = {"network": name, "processor": processor(), "results": found}
        console.write(json.dumps(document, indent=2) + "\n")
        return
    console.out.print(f"{name}; {processor()}; characters per second", markup=False)
    console.show(_table(results))


def processor() -> str:
    """The processor's name."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _network(model: str | None, shape: str | None) -> tuple[CharNetwork, Precision]:
    if (model is None) == (shape is None):
        raise InvalidInput("Give either a model or a --shape such as lstm:2x512.", param="model")
    if model is not None:
        with FullInstallation(read_settings()) as installation:
            registry = installation.registry
            registry.synchronise()
            artifact = registry.open(registry.resolve(model))
        return artifact.network(), artifact.card.serving_precision
    found = re.fullmatch(r"(\w+):(\d{1,2})x(\d{1,5})", shape or "")
    if found is None or found[1] not in get_args(Cell):
        raise InvalidInput(f"{shape!r} is not a shape: write lstm:2x512.", param="shape")
    size = int(found[3])
    config = NetworkConfig(cast(Cell, found[1]), int(found[2]), size, min(size, 64))
    torch.manual_seed(1)
    return CharNetwork(config, _SYMBOLS), "int8"


def _precision(text: str) -> Precision:
    if text not in PRECISIONS:
        raise InvalidInput("precision must be int8 or float32.", param="precision")
    return text


def _described(network: CharNetwork) -> str:
    config = network.config
    return f"{config.cell} {config.layers} x {config.hidden_size}, {network.symbols} symbols"


def _numbers(name: str, text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4})*", text):
        raise InvalidInput(f"{name} must be numbers with commas, such as 1,16,64.", param=name)
    return [int(number) for number in text.split(",")]


def _fields(result: Result) -> dict[str, Any]:
    return {
        **asdict(result),
        "times_plain": result.times_plain,
        "share_of_floor": result.share_of_floor,
    }


def _table(results: Iterable[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for each in results:
        table.add_row(
            each.task,
            str(each.rows),
            str(each.threads),
            f"{each.engine:,.0f}",
            f"{each.plain:,.0f}",
            f"{each.times_plain:.1f} x",
            f"{each.floor:,.0f}",
            f"{each.share_of_floor:.0%}",
        )
    return table
