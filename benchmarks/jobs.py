"""What training jobs cost and survive: ``python -m benchmarks.jobs [PART …]``.

Parts: claims, points, charts, overhead, first, beside, kills; without a PART, all of them.
Each runs on a SQLite file and on a PostgreSQL server started for it (or the one at
``CHARLOOM_TEST_POSTGRES_URL``), prints its figures in one line, and stores the line
in ``results.json`` for the page that ``python -m benchmarks --report`` writes.
``--kills N`` sets how many processes are killed on each database.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert

from app.database.job_tables import JobRow, RunRow
from app.database.session import Database
from app.jobs.queue import Queue
from app.jobs.values import Claim, Job, Point
from app.wiring.full import FullInstallation
from benchmarks.beside import beside
from benchmarks.kept import everything, keep
from benchmarks.kills import survive
from benchmarks.machines import machine
from benchmarks.overhead import measure_overhead
from tests import postgres
from tests.jobs.making import Place, make_place, wait_for

JOBS: Final = 2_000
CLAIMERS: Final = 4


def say(part: str, kind: str, told: str) -> None:
    """Print and store one line of results."""
    sys.stdout.write(f"{part:9} {kind:11} {told}\n")
    sys.stdout.flush()
    jobs = {**everything().get("jobs", {}), "machine": machine()}
    keep("jobs", jobs | {part: {**jobs.get(part, {}), kind: told}})


def many(place: Place, count: int) -> None:
    """Queue many equal jobs in one transaction."""
    job = place.submitted()
    with place.database.session() as session:
        jobs, runs = [], []
        row, run = session.get_one(JobRow, job.id), session.get_one(RunRow, job.run_id)
        fields = {c.name: getattr(row, c.name) for c in JobRow.__table__.columns}
        kept = {c.name: getattr(run, c.name) for c in RunRow.__table__.columns}
        for number in range(count - 1):
            other = f"{number:026d}"
            jobs.append(fields | {"id": other})
            runs.append(kept | {"id": other, "job_id": other})
        session.execute(insert(JobRow), jobs)
        session.execute(insert(RunRow), runs)


def _claim_all(url: str, start: Any, results: Any) -> None:
    database = Database(url)
    queue = Queue(database)
    database.ping()
    start.wait()
    claimed = []
    while claim := queue.claim("bench", "local"):
        claimed.append(claim.job_id)
    results.put(claimed)


def claims(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """Claims per second when four processes claim at once."""
    many(place, JOBS)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(CLAIMERS + 1), context.Queue()
    url = place.settings.resolved_database_url
    claimers = [
        context.Process(target=_claim_all, args=(url, start, results), daemon=True)
        for _ in range(CLAIMERS)
    ]
    for claimer in claimers:
        claimer.start()
    start.wait()
    began = time.perf_counter()
    claimed = [job for _ in claimers for job in results.get()]
    seconds = time.perf_counter() - began
    for claimer in claimers:
        claimer.join()
    twice = len(claimed) - len(set(claimed))
    say(
        "claims", kind,
        f"{len(claimed) / seconds:,.0f} claims/s, {CLAIMERS} claimers, {len(claimed):,} of "
        f"{JOBS:,} jobs claimed, {twice} twice",
    )  # fmt: skip


def _begun(place: Place) -> tuple[Job, Claim]:
    job = place.submitted()
    claim = place.queue.claim("bench", "local")
    assert claim is not None
    place.door.begin(claim, host="bench", pid=1, pid_started=1.0)
    return place.jobs.get(job.id), claim


def points(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """Points per second, written as a runner does (20 at a time) and in large batches."""
    job, claim = _begun(place)
    told = []
    for size, batches in ((20, 100), (1000, 20)):
        began = time.perf_counter()
        for batch in range(batches):
            written = [
                Point(f"metric_{n % 5}", 10**6 * size + batch * size + n, 0, 1.0)
                for n in range(size)
            ]
            place.door.record(claim, job.run_id, written, None)
        rate = size * batches / (time.perf_counter() - began)
        told.append(f"{rate:,.0f} points/s in transactions of {size}")
    say("points", kind, "; ".join(told))


def charts(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """The time to read a curve of 2,500 points as 1,000 buckets."""
    job, claim = _begun(place)
    for name in range(8):
        curve = [Point(f"metric_{name}", step, step, float(step)) for step in range(2_500)]
        place.door.record(claim, job.run_id, curve, None)
    jobs, times = place.jobs, []
    for _ in range(20):
        began = time.perf_counter()
        (series,) = jobs.metrics(job.run_id, ["metric_3"])
        times.append(time.perf_counter() - began)
    assert len(series.points) == 1_000
    began = time.perf_counter()
    jobs.metrics(job.run_id)
    whole = time.perf_counter() - began
    say(
        "charts", kind,
        f"{statistics.median(times) * 1000:.1f} ms for one curve of 2,500 points (median of 20), "
        f"{whole * 1000:.0f} ms for eight",
    )  # fmt: skip


def overhead(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """The training of a job compared with the bare loop."""
    say("overhead", kind, measure_overhead(place, arguments.repeats))


def first(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """The time from submitting a job to its first metric; each job runs in its own process."""
    system = FullInstallation(place.settings)
    system.dispatcher.start()
    times = []
    try:
        system.jobs.submit(place.spec())  # measures the machine
        for _ in range(3):
            wait_for(lambda: set(system.jobs.counts()) == {"succeeded"})
            job = system.jobs.submit(place.spec())
            found = wait_for(lambda run=job.run_id: system.jobs.metrics(run))  # type: ignore[misc]
            times.append((found[0].points[0].at - job.created_at) / 1000)
            seen = (time.time() * 1000 - job.created_at) / 1000
        wait_for(lambda: set(system.jobs.counts()) == {"succeeded"})
    finally:
        system.dispatcher.close()
        system.close()
    say(
        "first", kind,
        f"{statistics.median(times):.1f} s from submitting to the first metric measured "
        f"(median of 3), {seen:.1f} s until it is read",
    )  # fmt: skip


def kills(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """Kill runners, servers or both at random moments, ``--kills`` processes in all."""
    say("kills", kind, survive(place, arguments.kills))


def with_completions(place: Place, kind: str, arguments: argparse.Namespace) -> None:
    """The times of completions while a job trains."""
    folder = Path(place.settings.data_dir).parent
    say("beside", kind, beside(folder, place.settings.resolved_database_url))


PARTS: Final[dict[str, Callable[[Place, str, argparse.Namespace], None]]] = {
    "claims": claims,
    "points": points,
    "charts": charts,
    "overhead": overhead,
    "first": first,
    "beside": with_completions,
    "kills": kills,
}


@contextmanager
def places() -> Iterator[list[tuple[str, Callable[[], Any]]]]:
    """Functions that make fresh places, one for each kind of database."""
    with postgres.server() as url:

        @contextmanager
        def on_sqlite() -> Iterator[Place]:
            with (
                tempfile.TemporaryDirectory() as folder,
                _place(f"sqlite:///{folder}/jobs.sqlite3", folder) as place,
            ):
                yield place

        @contextmanager
        def on_postgresql() -> Iterator[Place]:
            with (
                tempfile.TemporaryDirectory() as folder,
                postgres.empty_database(url) as made,
                _place(made, folder) as place,
            ):
                yield place

        yield [("SQLite", on_sqlite), ("PostgreSQL", on_postgresql)]


@contextmanager
def _place(url: str, folder: str) -> Iterator[Place]:
    database = Database(url)
    database.migrate()
    try:
        yield make_place(database, Path(folder), lease=12.0)
    finally:
        database.close()


def main() -> None:
    """Run the named parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with places() as found:
        for part in arguments.parts or list(PARTS):
            for kind, make in found:
                with make() as place:
                    PARTS[part](place, kind, arguments)


if __name__ == "__main__":
    main()
