"""Jobs in the local database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..jobs.control import JobControl
from ..rendering.ids import bare_id
from ..rendering.jobs import event_object, job_object
from ..settings import Settings
from ..wiring.installation import Installation


@contextmanager
def local_jobs(settings: Settings) -> Iterator[LocalJobs]:
    """The jobs in the database that the settings name."""
    with Installation(settings) as installation:
        yield LocalJobs(installation.job_control)


class LocalJobs:
    """Jobs in the local database."""

    def __init__(self, jobs: JobControl) -> None:
        self._jobs = jobs

    def listed(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        return [job_object(job) for job in self._jobs.list(state=state, limit=limit).items]

    def get(self, id: str) -> dict[str, Any]:
        return job_object(self._jobs.get(bare_id("job", id)))

    def steer(self, id: str, verb: str) -> dict[str, Any]:
        steps = {"cancel": self._jobs.cancel, "pause": self._jobs.pause,
                 "resume": self._jobs.resume}  # fmt: skip
        return job_object(steps[verb](bare_id("job", id)))

    def delete(self, id: str) -> None:
        self._jobs.delete(bare_id("job", id))

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        found = self._jobs.events(bare_id("job", id), after=after, limit=100)
        return [event_object(event) for event in found]
