"""``python -m benchmarks``: measure everything, write ``RESULTS.md`` and the charts.

The servers run on one core, the client (this process) on another. The servers take
turns for several rounds; figures are medians over rounds. ``--quick`` only checks
that everything runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from app.store.artifact import read
from benchmarks import loads, report
from benchmarks.fleet import SERVERS, cores, network_file, server
from benchmarks.kept import everything, keep
from benchmarks.loads import Seen
from benchmarks.machines import machine

HERE: Final = Path(__file__).parent
SHAPES: Final = ("lstm:1x128", "lstm:2x128", "lstm:2x512", "gru:2x512", "rnn:2x512")
SMALL: Final = 128
NETWORKS: Final = ((2, SMALL), (2, 512))
OVERLOADED_SECONDS: Final = 1.0
CLIENTS: Final = (1, 4, 16, 64, 256)
ARRIVALS: Final = (5, 20, 50, 100, 200, 400)
_say: Final = Console(stderr=True, highlight=False).print


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    rounds: int
    seconds: float
    bench_seconds: float
    requests: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only", choices=("engine", "http", "closed"), help="measure this part, keep the rest"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write the page again"
    )
    given = parser.parse_args()
    plan = Plan(1, 0.5, 0.02, 30) if given.quick else Plan(given.rounds, 2.5, 0.3, 400)
    found = everything()
    if not given.report:
        found["machine"] = machine()
        found["quantization"] = _quantization()
        if given.only in (None, "engine"):
            found["engine"] = {shape: _engine(shape, plan) for shape in SHAPES}
        with tempfile.TemporaryDirectory() as folder:
            if given.only in (None, "http"):
                found["http"] = asyncio.run(_http(Path(folder), plan))
            elif given.only == "closed":
                found["http"]["closed"] = asyncio.run(_closed(Path(folder), plan))
    if given.quick:
        _say("everything ran; nothing was written")
        return
    for part in ("machine", "engine", "http", "quantization"):
        if part in found:
            keep(part, found[part])
    report.write(found, HERE)


def _quantization() -> dict[str, float]:
    """How much int8 raises the shipped models' loss, as measured when they were published."""
    losses = {}
    for path in sorted(Path("models").glob("*/1.safetensors")):
        loss = read(path.read_bytes()).card.lineage.parameters["int8_loss"]
        assert isinstance(loss, float)
        losses[path.parent.name] = loss
    return losses


def _engine(shape: str, plan: Plan) -> list[dict[str, Any]]:
    _say(f"engine, {shape}")
    command = [sys.executable, "-c", "from app.cli import main; main()", "bench", "--json"]
    command += ["--shape", shape, "--threads", "1,2", "--seconds", str(plan.bench_seconds)]
    results: list[dict[str, Any]] = json.loads(subprocess.check_output(command))["results"]
    return results


async def _closed(folder: Path, plan: Plan) -> dict[str, Any]:
    """The closed loops alone."""
    os.sched_setaffinity(0, cores()[1])
    return {
        f"{layers}x{size}": await _rounds(
            network_file(folder, layers, size), plan, CLIENTS, loads.closed_loop
        )
        for layers, size in NETWORKS
    }


async def _http(folder: Path, plan: Plan) -> dict[str, Any]:
    os.sched_setaffinity(0, cores()[1])
    found: dict[str, Any] = {"closed": {}, "poisson": {}}
    for layers, size in NETWORKS:
        weights = network_file(folder, layers, size)
        key = f"{layers}x{size}"
        found["closed"][key] = await _rounds(weights, plan, CLIENTS, loads.closed_loop)
        if size == SMALL:
            found["poisson"][key] = await _rounds(weights, plan, ARRIVALS, loads.poisson)
        async with server("charloom", weights) as running:
            _say(f"first character under load, {key}")
            found[f"first_under_load_{key}"] = await loads.first_character_under_load(
                running.port, requests=plan.requests // 2
            )
    small = folder / "lstm2x128" / "1.safetensors"
    found["typing"] = {}
    for name in ("empty", "charloom") * 2:
        async with server(name, small) as running:
            _say(f"one character typed, {name}")
            taken = await loads.typing(running.port, plan.requests)
            found["typing"].setdefault(name, []).append(statistics.median(taken))
    found["one_stream"] = await _one_stream(small, plan)
    return found


async def _rounds(
    weights: Path, plan: Plan, levels: tuple[int, ...], load: Callable[..., Any]
) -> dict[str, dict[int, dict[str, float]]]:
    """Server -> level -> medians over the rounds; the servers take turns."""
    seen: dict[str, dict[int, list[Seen]]] = {name: {} for name in SERVERS}
    for turn in range(plan.rounds):
        for name in SERVERS:
            _say(f"{load.__name__}, {weights.parent.name}, round {turn + 1}, {name}")
            async with server(name, weights) as running:
                for level in levels:
                    got = await load(running.port, level, seconds=plan.seconds)
                    seen[name].setdefault(level, []).append(got)
                    if load is loads.poisson and not got.first_p50 < OVERLOADED_SECONDS:
                        break  # a higher rate would be no better
    return {
        name: {level: _medians(rounds) for level, rounds in by_level.items()}
        for name, by_level in seen.items()
    }


def _medians(rounds: list[Seen]) -> dict[str, float]:
    return {
        name: statistics.median(asdict(each)[name] for each in rounds) for name in asdict(rounds[0])
    }


async def _one_stream(weights: Path, plan: Plan) -> dict[str, float]:
    """How much of the engine's own rate reaches one client."""
    command = [sys.executable, "-c", "from app.cli import main; main()", "bench", "--json"]
    command += ["--shape", "lstm:2x128", "--rows", "1", "--seconds", str(plan.bench_seconds)]
    pairs = []
    for _ in range(plan.rounds):
        own = json.loads(subprocess.check_output(command))["results"][0]["engine"]
        async with server("charloom", weights) as running:
            seen = await loads.closed_loop(
                running.port, 1, seconds=plan.seconds, max_tokens=100_000
            )
        pairs.append((own, seen.characters_per_second))
    return {
        "engine": statistics.median(own for own, _ in pairs),
        "client": statistics.median(got for _, got in pairs),
    }


if __name__ == "__main__":
    main()
