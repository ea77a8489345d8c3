"""Show and control jobs, for the web and the command line.

Every method blocks (call it from a worker thread) and returns frozen values; threads may
share one instance. Ids are bare ULIDs. Nothing here plans or runs a job: see ``jobs`` for
submitting, ``dispatcher`` and ``app.runner`` for running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ..database.session import Database
from ..errors import InvalidInput, StorageFailed
from ..store.blobs import BlobStore
from .checkpoints.retention import checkpoint_deletions
from .points import read_series
from .queries import list_jobs, list_runs, read_checkpoints, read_events, read_job, read_run
from .queue import Queue
from .samples import read_samples
from .states import JobState
from .times import Times
from .values import CheckpointInfo, Event, Job, Order, Page, Run, Sample, Series


class JobControl:
    """Show training jobs and their runs; pause, resume, cancel and delete them.

    ``on_change`` is called when a dispatcher may have something to do.
    """

    def __init__(
        self,
        database: Database,
        checkpoints: BlobStore,
        *,
        times: Times | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._queue = Queue(database, times)
        self._database = database
        self._checkpoints = checkpoints
        self._on_change = on_change or (lambda: None)

    def get(self, job_id: str) -> Job:
        """One job; raises NotFound (job_not_found)."""
        with self._database.session(read_only=True) as session:
            return read_job(session, job_id)

    def list(
        self,
        *,
        state: str | None = None,
        model: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[Job]:
        """A page of jobs; ``after`` is the id of the previous page's last job."""
        wanted = None if state is None else _state(state)
        with self._database.session(read_only=True) as session:
            return list_jobs(
                session, state=wanted, model=model, after=after, limit=limit, order=order
            )

    def cancel(self, job_id: str) -> Job:
        """Cancel, idempotently; raises NotFound, Conflict (job_state)."""
        self._queue.cancel(job_id)
        return self._changed(job_id)

    def pause(self, job_id: str) -> Job:
        """Pause at a checkpoint, idempotently; raises NotFound, Conflict (job_state)."""
        self._queue.pause(job_id)
        return self._changed(job_id)

    def resume(self, job_id: str) -> Job:
        """Resume a paused job, idempotently; raises NotFound, Conflict (job_state)."""
        self._queue.resume(job_id)
        return self._changed(job_id)

    def delete(self, job_id: str) -> None:
        """Delete a final job with its run, events, metrics and checkpoints; the model stays.

        Raises NotFound, and Conflict while the job is not final.
        """
        deletions = checkpoint_deletions(self._database, self._checkpoints)
        files: Iterable[str] = ()  # also those without a row, which nothing would find later
        with suppress(StorageFailed):
            files = self._checkpoints.sizes(self.get(job_id).run_id)
        deletions.finish(self._queue.delete(job_id, deletions, files))

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """The events of a job after the event with that id, in order; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_job(session, job_id)
            return read_events(session, job_id, after, limit)

    def get_run(self, run_id: str) -> Run:
        """One run; raises NotFound (run_not_found)."""
        with self._database.session(read_only=True) as session:
            return read_run(session, run_id)

    def runs(
        self,
        *,
        model: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[Run]:
        """A page of runs."""
        with self._database.session(read_only=True) as session:
            return list_runs(session, model=model, after=after, limit=limit, order=order)

    def metrics(
        self, run_id: str, names: Sequence[str] | None = None, max_points: int = 1000
    ) -> Sequence[Series]:
        """The metrics of a run, all or those in ``names``; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_run(session, run_id)
            return read_series(session, run_id, names, max_points)

    def samples(
        self, run_id: str, *, after: int | None = None, limit: int = 20, order: Order = "asc"
    ) -> Page[Sample]:
        """What the network of a run wrote, by step; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_run(session, run_id)
            return read_samples(session, run_id, after=after, limit=limit, order=order)

    def checkpoints(self, run_id: str) -> Sequence[CheckpointInfo]:
        """The checkpoints of a run, the furthest first; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_run(session, run_id)
            return read_checkpoints(session, run_id)

    def counts(self, *, hurried: bool = False) -> dict[str, int]:
        """The number of jobs by state; ``hurried``: fail soon where the database is busy."""
        return self._queue.counts(hurried=hurried)

    def _changed(self, job_id: str) -> Job:
        self._on_change()
        return self.get(job_id)


def _state(name: str) -> JobState:
    try:
        return JobState(name)
    except ValueError as error:
        raise InvalidInput(
            f"state must be one of {', '.join(JobState)}.", param="state", code="invalid_value"
        ) from error
