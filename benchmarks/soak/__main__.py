"""``python -m benchmarks.soak --minutes 20``: everything at once against a server that restarts.

Programs that write, score, rank and read; models that are loaded and dropped, imported and
deleted; aliases that move; datasets; readers that stall, silent connections, hostile bodies,
clients that leave. They pause between requests: with every processor busy, latency would
measure the machine. The server gets SIGTERM under load and is started again, up to four times in
the first 45 % of the run; the process after that serves until the end, so that its memory can
be judged. Ends with one line for each criterion and the exit code 0 if all are met.
``--minutes 1`` only checks that everything runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from app.store.artifact import write
from benchmarks.kept import keep
from benchmarks.loads import quantile
from benchmarks.soak import changing, hostile, workloads
from benchmarks.soak.crowd import Workload, World, crowd
from benchmarks.soak.models import FILE_SHAPES, artifact
from benchmarks.soak.prober import probes
from benchmarks.soak.process import Server
from benchmarks.soak.samples import Sample, draw, sample, write_table
from benchmarks.soak.tally import Tally
from benchmarks.soak.verdict import Criterion, Run, verdict
from benchmarks.soak.wire import Wire

ALL: Final = (*workloads.WORKLOADS, *changing.WORKLOADS, *hostile.WORKLOADS)
_RESTARTS: Final = 4
_LEAST_SECONDS: Final = 20.0  # between two restarts
_KEPT_FROM: Final = 10.0  # minutes; shorter runs are not written into the results
_HERE: Final = Path(__file__).parents[1]
_say: Final = Console(highlight=False, soft_wrap=True).print


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument(
        "--folder",
        type=Path,
        help="for table, picture and logs; by default a run of ten minutes or more leaves the "
        "first two in benchmarks/ and its figures for the page of results",
    )
    parser.add_argument("--without", default="", help="names of workloads, separated by commas")
    given = parser.parse_args()
    if os.geteuid() == 0:  # only root may give the server the normal priority again
        os.nice(5)  # the load must not keep the server from its processors
    with tempfile.TemporaryDirectory() as folder:
        chosen = [each for each in ALL if each.name not in given.without.split(",")]
        run = asyncio.run(_soak(60 * given.minutes, Path(folder), chosen))
        place = given.folder or (_HERE if given.minutes >= _KEPT_FROM else None)
        if place is not None:
            _write(run, place, logs=given.folder is not None)
        _show_counts(run.tally)
        criteria = verdict(run)
    if given.folder is None and place is not None:
        keep("soak", _figures(run, criteria, given.minutes))
    for each in criteria:
        _say(str(each), markup=False)
    _say("\nall criteria are met" if all(each.met for each in criteria) else "\nnot all are met")
    sys.exit(0 if all(each.met for each in criteria) else 1)


async def _soak(seconds: float, folder: Path, chosen: Sequence[Workload]) -> Run:
    """The whole run; the server and the prober have ended after it."""
    names = [f"model-{number}" for number in range(len(FILE_SHAPES))]
    for name, shape in zip(names, FILE_SHAPES, strict=True):
        for version in (1, 2):
            path = folder / "models" / name / f"{version}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write(artifact(shape, seed=version)))
    server = Server(_free_port(), folder, _settings(folder))
    tally, samples = Tally(), list[Sample]()
    imported = write(artifact(FILE_SHAPES[0], seed=3))
    world = World(server.port, tally, names, imported)
    try:
        if await server.start():
            await _first_aliases(world)
        async with _prober(server.port, folder / "probes") as file:
            begin = time.monotonic()
            tasks = [asyncio.create_task(crowd(world, chosen))]
            tasks += [asyncio.create_task(_sampling(server, tally, samples, begin))]
            try:
                await _restarts(server, tally, begin, seconds)
            finally:
                await server.stop()  # while everybody still asks
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        polite = frozenset(each.name for each in chosen if each.polite)
        every = frozenset(each.name for each in chosen)
        return Run(server, tally, probes(file), samples, polite, every)
    finally:
        await server.stop()


def _settings(folder: Path) -> dict[str, str]:
    return {
        "CHARLOOM_MODELS_DIR": str(folder / "models"),
        "CHARLOOM_DATA_DIR": str(folder / "data"),
        # The server gives up before its clients do.
        "CHARLOOM_REQUEST_SECONDS": "90",
        "CHARLOOM_MODEL_MEMORY_MB": "10",  # for about half of the models
        "CHARLOOM_STATE_CACHE_MB": "32",  # full within seconds
    }


async def _first_aliases(world: World) -> None:
    for name in world.models:
        async with asyncio.timeout(60.0), Wire(world.port) as wire:
            path = f"/v1/models/{name}/aliases/live"
            await wire.ask(world.tally, "aliases", "PUT", path, {"version": 1})


async def _restarts(server: Server, tally: Tally, begin: float, seconds: float) -> None:
    """Restart in the first two fifths; one process is then left for the rest of the time."""
    every = max(_LEAST_SECONDS, seconds / 10)
    while (left := begin + seconds - time.monotonic()) > 0:
        await asyncio.sleep(min(every, left))
        passed = time.monotonic() - begin
        _say(f"{passed:6.0f} s  {tally.total:9,} answers")
        if len(server.lives) <= _RESTARTS and passed < seconds * 0.45:
            await server.stop()
            life = server.current
            _say(f"          SIGTERM: gone after {life.end_seconds:.1f} s")
            if not await server.start():
                return


async def _sampling(server: Server, tally: Tally, samples: list[Sample], begin: float) -> None:
    while True:
        await asyncio.sleep(1.0)
        passed, process = time.monotonic() - begin, len(server.lives)
        pid = server.current.pid
        seen = sample(pid, seconds=passed, process=process, answers=tally.total)
        if seen is not None and server.current.ready is not None and server.current.gone is None:
            samples.append(seen)


@asynccontextmanager
async def _prober(port: int, file: Path) -> AsyncIterator[Path]:
    """The prober as a process of its own, ended at the end."""
    command = [sys.executable, "-m", "benchmarks.soak.prober", str(port), str(file)]
    process = subprocess.Popen(command)
    try:
        yield file
    finally:
        process.terminate()
        process.wait()


def _show_counts(tally: Tally) -> None:
    _say("\nanswers, by workload, status and code")
    for (workload, status, code), count in sorted(tally.counts.items()):
        _say(f"  {count:8,}  {workload:16} {status} {code}", markup=False)
    _say("")


def _write(run: Run, place: Path, *, logs: bool) -> None:
    place.mkdir(parents=True, exist_ok=True)
    write_table(run.samples, place / "soak.tsv")
    draw(run.samples, place / "soak.svg")
    for life in run.server.lives if logs else ():
        (place / life.log.name).write_bytes(life.log.read_bytes())


def _figures(run: Run, criteria: Sequence[Criterion], minutes: float) -> dict[str, Any]:
    """The run for the page of results; memory is that of the last process, by thirds."""
    last = [each for each in run.samples if each.process == run.samples[-1].process]
    third = len(last) // 3
    settled, end = (
        quantile([each.megabytes for each in part], 0.5)
        for part in (last[third:-third], last[-third:])
    )
    return {
        "minutes": minutes,
        "requests": run.tally.total,
        "settled": settled,
        "last": end,
        "criteria": [[each.name, each.met, each.seen] for each in criteria],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
