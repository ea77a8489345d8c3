"""Training jobs as the web and the command line see them.

Takes a database, a registry and the datasets; every method blocks (call it from
a worker thread), is safe to share between threads, and gives frozen values.
Ids are bare ULIDs. Nothing here runs a job: see ``dispatcher`` and ``runner``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from pydantic import BaseModel

from app.charlm.network import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.charlm.sizing import CorpusFacts
from app.charlm.vocabulary import RESERVED
from app.database.session import Database
from app.errors import InvalidInput, UnknownModel
from app.jobs.machine import machine_speed, memory_limit
from app.jobs.points import read_series
from app.jobs.queue import NewJob, Queue
from app.jobs.reading import (
    list_jobs,
    list_runs,
    read_checkpoints,
    read_events,
    read_job,
    read_run,
)
from app.jobs.settling import AS_ASKED, Settled, check_memory, memory_needed, settle
from app.jobs.sources import DatasetLike, DatasetSource
from app.jobs.spec import JobSpec, settled_document
from app.jobs.states import JobState
from app.jobs.times import Times
from app.jobs.training_run import SHAPE
from app.jobs.values import CheckpointInfo, Event, Job, Order, Page, Run, Series
from app.registry import ModelVersion, Registry
from app.store.blobs import BlobStore

_COVERED: Final = {
    "network": {"layers", "hidden_size"},
    "embedding": {"embedding_size"},
    "dropout": {"dropout"},
    "rows × window": {"batch_size", "window"},
    "learning rate": {"learning_rate"},
}


class Jobs:
    """Submit, look at and steer training jobs.

    ``memory_limit_bytes`` is what a job may use (None: four fifths of the
    machine's); ``speed`` tells the machine's speed, in operations a second;
    ``on_change`` is called when a dispatcher may have something to do.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        datasets: DatasetSource,
        checkpoints: BlobStore,
        *,
        memory_limit_bytes: int | None = None,
        times: Times | None = None,
        speed: Callable[[], float] | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._queue = Queue(database, times)
        self._database = database
        self._registry = registry
        self._datasets = datasets
        self._checkpoints = checkpoints
        self._memory_limit = memory_limit_bytes
        self._speed = speed or (lambda: machine_speed(torch.get_num_threads()))
        self._on_change = on_change or (lambda: None)

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Settle what was left out and queue the job.

        The same ``idempotency_key`` with the same spec gives the job that it
        made, for a day. Takes about a second the first time, to measure the
        machine. Raises InvalidInput (a field, or memory that would not do),
        NotFound (dataset, base_model), Conflict (key used for another spec).
        """
        digest = spec.digest()
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
            raise InvalidInput(
                "An idempotency key has 1 to 255 characters.",
                param="Idempotency-Key",
                code="out_of_range",
            )
        if idempotency_key is not None:
            before = self._queue.made_by(idempotency_key, digest)
            if before is not None:
                return self.get(before)
        job_id = self._queue.submit(self._settled(spec, digest), idempotency_key=idempotency_key)
        self._on_change()
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job as it stands; raises NotFound (job_not_found)."""
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
        """A page of jobs; ``after`` is the id of the last one of the page before."""
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
        """Go on where the job was paused, idempotently; raises NotFound, Conflict (job_state)."""
        self._queue.resume(job_id)
        return self._changed(job_id)

    def delete(self, job_id: str) -> None:
        """Remove a final job with its run, events, metrics and checkpoints; the model stays.

        Raises NotFound, and Conflict while the job is not final.
        """
        for key in self._queue.delete(job_id):
            self._checkpoints.delete(key)

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """What happened to a job after the event with that id, in order; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_job(session, job_id)
            return read_events(session, job_id, after, limit)

    def run(self, run_id: str) -> Run:
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
        """The curves of a run, or those named; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_run(session, run_id)
            return read_series(session, run_id, names, max_points)

    def checkpoints(self, run_id: str) -> Sequence[CheckpointInfo]:
        """The checkpoints of a run, the furthest first; raises NotFound."""
        with self._database.session(read_only=True) as session:
            read_run(session, run_id)
            return read_checkpoints(session, run_id)

    def counts(self) -> dict[str, int]:
        """The number of jobs by state."""
        return self._queue.counts()

    def _changed(self, job_id: str) -> Job:
        self._on_change()
        return self.get(job_id)

    def _settled(self, spec: JobSpec, digest: str) -> NewJob:
        """The job with every value that was left out chosen, if it can be done at all."""
        dataset: DatasetLike = self._datasets.get(spec.dataset_id)
        base = self._base(spec.base_model)
        facts = _facts(dataset, spec, base)
        settled = settle(
            facts,
            _asked_network(spec, base),
            _asked(spec.training, TrainingConfig),
            speed=self._speed(),
            seed=spec.training.seed,
        )
        check_memory(
            memory_needed(settled.network, settled.training, facts.symbols, dataset.characters),
            self._memory_limit or memory_limit(),
        )
        base_version = base.id if base else None
        return NewJob(
            model=spec.model,
            dataset_id=dataset.id,
            base_version=base_version,
            spec=settled_document(spec, settled.network, settled.training, base_version),
            spec_hash=digest,
            chosen={"values": _reasons(settled, spec)},
            parameters={
                "network": dataclasses.asdict(settled.network),
                "training": dataclasses.asdict(settled.training),
            },
            tags=dict(spec.tags),
            seed=spec.training.seed,
            priority=spec.priority,
            max_attempts=spec.max_attempts,
        )

    def _base(self, reference: str | None) -> ModelVersion | None:
        if reference is None:
            return None
        try:
            return self._registry.resolve(reference)
        except UnknownModel as error:
            raise UnknownModel(error.message, param="base_model") from error


def _state(name: str) -> JobState:
    try:
        return JobState(name)
    except ValueError as error:
        raise InvalidInput(
            f"state must be one of {', '.join(JobState)}.", param="state", code="invalid_value"
        ) from error


def _asked(wishes: BaseModel, config: type) -> dict[str, Any]:
    """What was asked for of a configuration."""
    names = {field.name for field in dataclasses.fields(config)}
    return {
        name: value
        for name, value in wishes.model_dump().items()
        if value is not None and name in names
    }


def _asked_network(spec: JobSpec, base: ModelVersion | None) -> dict[str, Any]:
    """The network that was asked for; with a base it is the base's, but for the dropout."""
    asked = _asked(spec.network, NetworkConfig)
    if base is None:
        return asked
    shape = {name: base.card[name] for name in SHAPE}
    for name in SHAPE:
        if asked.get(name, shape[name]) != shape[name]:
            raise InvalidInput(
                f"network.{name} is {shape[name]} in {base.id}, which this job is to start from; "
                "leave it out, or leave base_model out.",
                param=f"network.{name}",
                code="base_model_differs",
            )
    return {**asked, **shape}


def _reasons(settled: Settled, spec: JobSpec) -> list[dict[str, str]]:
    """Why what was chosen was chosen; nothing of what was asked for."""
    wishes = {**spec.network.model_dump(), **spec.training.model_dump()}
    asked = {name for name, value in wishes.items() if value is not None}
    return [
        {"name": each.name, "value": each.value, "reason": each.reason}
        for each in settled.chosen
        if each.reason != AS_ASKED and not asked & _COVERED.get(each.name, set())
    ]


def _facts(dataset: DatasetLike, spec: JobSpec, base: ModelVersion | None) -> CorpusFacts:
    """What the choice depends on, from the dataset's description."""
    held_out = spec.training.validation_fraction + spec.training.test_fraction
    symbols = dataset.symbols + RESERVED + (base.card["symbols"] if base else 0)
    characters = max(1, round(dataset.characters * (1 - held_out)))
    mean_length = dataset.characters / max(1, dataset.records)
    typical = dataset.profile.get("typical_length") or round(2 * mean_length)
    return CorpusFacts(dataset.format, characters, symbols, mean_length, max(1, int(typical)))
