"""Training jobs whose runner, server or both are killed, again and again.

Part of ``python -m benchmarks.jobs``: reports how many were killed, how the jobs
ended, and what was lost.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import Final

from sqlalchemy import func, select

from app.database.job_tables import MetricPointRow
from app.errors import CharloomError
from app.jobs.checkpoints.files import load_checkpoint
from app.jobs.states import JobState
from app.jobs.values import Job
from tests.jobs.making import Place, wait_for
from tests.survival.test_kills import LONG, runners, server

STEPS: Final = {**LONG, "max_steps": 2_500}  # a few seconds of training


def survive(place: Place, kills: int) -> str:
    """Kill runners, servers or both at random moments, ``kills`` in all; report how jobs ended."""
    chance = random.Random(7)
    lost: list[float] = []
    done: list[Job] = []
    killed = {"runner": 0, "server": 0}
    while sum(killed.values()) < kills:
        with server(place) as process:
            alive = True
            while alive and sum(killed.values()) < kills:
                if not done or place.jobs.get(done[-1].id).is_final:
                    done.append(place.submitted(STEPS, max_attempts=100))
                wait_for(lambda: runners(place), seconds=120)
                time.sleep(chance.uniform(0.0, 9.0))
                whom = chance.choice(("runner", "runner", "server", "both"))
                last, at = _last_point(place, done[-1]), time.time() * 1000
                if whom != "runner":
                    process.kill()
                    killed["server"] += 1
                    alive = False
                if whom != "server" and _kill_runners(place):
                    killed["runner"] += 1
                    lost += [(at - last) / 1000] if last else []
    with server(place):
        for job in done:
            wait_for(lambda j=job: place.jobs.get(j.id).is_final, seconds=300)  # type: ignore[misc]
    ends = [place.jobs.get(job.id) for job in done]
    survived = sum(job.state is JobState.SUCCEEDED for job in ends)
    versions = place.registry.versions("words")
    doubled = len(versions) - len({version.run_id for version in versions})
    doubled += len(place.registry.synchronise().added)
    return (
        f"{killed['runner']} runners and {killed['server']} servers killed, {len(done)} jobs "
        f"({sum(j.attempt for j in ends)} attempts), {survived} published, {doubled} duplicates, "
        f"{_damaged(place, done)} damaged files, at most {max(lost, default=0):.1f} s of metrics "
        "lost"
    )


def _kill_runners(place: Place) -> bool:
    """Kill all runners; return whether there were any."""
    pids = runners(place)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _last_point(place: Place, job: Job) -> int | None:
    """When the current attempt last wrote a point; None if it is not training."""
    now = place.jobs.get(job.id)
    if now.state is not JobState.RUNNING or (now.progress and now.progress.fraction == 1):
        return None
    query = select(func.max(MetricPointRow.wall_ms)).where(
        MetricPointRow.run_id == job.run_id, MetricPointRow.attempt_number == now.attempt
    )
    with place.database.session(read_only=True) as session:
        return session.scalar(query)


def _damaged(place: Place, done: list[Job]) -> int:
    """The number of checkpoints and models whose file does not match its row."""
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
