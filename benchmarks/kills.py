"""Training jobs whose runner, server or both are killed, again and again.

Part of ``python -m benchmarks.jobs``: says how many were killed, what became of
the jobs, and what was lost.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from sqlalchemy import func, select, update

from app.database.job_tables import JobRow, MetricPointRow
from app.errors import CharloomError
from app.jobs.checkpoints import load_checkpoint
from app.jobs.states import JobState
from app.jobs.values import Job
from tests.jobs.making import Place, wait_for
from tests.survival.test_kills import LONG, runners, server


def survive(place: Place, kills: int) -> str:
    """Kill runners, servers or both at random moments until so many were; what came of it."""
    chance, killed, lost, done = random.Random(7), 0, [], []
    while killed < kills:
        job = place.submitted(LONG, max_attempts=100)
        while killed < kills and not place.jobs.get(job.id).is_final:
            with server(place) as process:
                wait_for(lambda: runners(place))
                time.sleep(chance.uniform(0.0, 3.0))
                whom = chance.choice(("runner", "runner", "server", "both"))
                at = time.time() * 1000
                last = _last_point(place, job)
                if whom != "runner":
                    process.kill()
                if whom != "server":
                    for pid in runners(place):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    if last:
                        lost.append((at - last) / 1000)
                killed += 1 + (whom == "both")
                with place.database.session() as session:
                    session.execute(update(JobRow).values(not_before=0))
        done.append(job)
    with server(place):
        for job in done:
            wait_for(lambda j=job: place.jobs.get(j.id).is_final, seconds=300)  # type: ignore[misc]
    ends = [place.jobs.get(job.id) for job in done]
    survived = sum(job.state is JobState.SUCCEEDED for job in ends)
    versions = place.registry.versions("words")
    doubled = len(versions) - len({version.run_id for version in versions})
    doubled += len(place.registry.synchronise().added)
    return (
        f"{killed} processes killed in {len(done)} jobs ({sum(j.attempt for j in ends)} attempts), "
        f"{survived} of {len(done)} jobs published, {doubled} duplicates, {_damaged(place, done)} "
        f"damaged files, at most {max(lost, default=0):.1f} s of metrics lost"
    )


def _last_point(place: Place, job: Job) -> int | None:
    query = select(func.max(MetricPointRow.wall_ms)).where(MetricPointRow.run_id == job.run_id)
    with place.database.session(read_only=True) as session:
        return session.scalar(query)


def _damaged(place: Place, done: list[Job]) -> int:
    """Files that are not what their row says: checkpoints and models."""
    damaged = len(place.registry.synchronise().damaged)
    for job in done:
        for info in place.jobs.checkpoints(job.run_id):
            try:
                load_checkpoint(place.checkpoints, info)
            except CharloomError:
                damaged += 1
    for version in place.registry.versions("words"):
        try:
            place.registry.open(version)
        except CharloomError:
            damaged += 1
    return damaged
