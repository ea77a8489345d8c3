"""Submit jobs: plan them completely, check them against the machine's memory, queue them.

Takes a database, the catalog and the machine's speed and memory. Values that a specification
leaves out are chosen here, once: the runner trains what was planned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from ..catalog.datasets import Datasets
from ..catalog.index import ModelIndex
from ..catalog.model_rows import ModelVersion
from ..database.job_tables import KEY_LENGTH
from ..database.session import Database
from ..errors import InvalidInput, UnknownModel
from ..store.blobs import BlobStore
from ..training.planning import (
    TrainingPlan,
    check_memory,
    memory_needed,
    most_symbols,
    plan_training,
)
from .control import JobControl
from .queue import NewJob
from .spec import JobSpec, planned_document
from .times import Times
from .values import Job


class Jobs(JobControl):
    """Submit, show and control training jobs.

    ``memory_limit`` returns the bytes that a job may use and ``speed`` operations a second,
    both of the machines that train; ``on_change`` is called when a dispatcher may have
    something to do.
    """

    def __init__(
        self,
        database: Database,
        index: ModelIndex,
        datasets: Datasets,
        checkpoints: BlobStore,
        *,
        memory_limit: Callable[[], int],
        speed: Callable[[], float],
        times: Times | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(database, checkpoints, times=times, on_change=on_change)
        self._index = index
        self._datasets = datasets
        self._memory_limit = memory_limit
        self._speed = speed

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Plan what was left out and queue the job.

        For a day, the same ``idempotency_key`` with the same spec returns the job that the
        first call made. The first call takes about a second, to measure the machine. Raises
        InvalidInput (a field, or too little memory), NotFound (dataset, base_model), Conflict
        (key used for another spec), Overloaded (the file of base_model is missing).
        """
        digest = spec.digest()
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= KEY_LENGTH:
            raise InvalidInput(
                f"An idempotency key has 1 to {KEY_LENGTH} characters.",
                param="Idempotency-Key",
                code="out_of_range",
            )
        if idempotency_key is not None:
            before = self._queue.made_by(idempotency_key, digest)
            if before is not None:
                return self.get(before)
        job_id = self._queue.submit(self._planned(spec, digest), idempotency_key=idempotency_key)
        self._on_change()
        return self.get(job_id)

    def _planned(self, spec: JobSpec, digest: str) -> NewJob:
        """The job with every value chosen; raises if it cannot be trained."""
        dataset = self._datasets.get(spec.dataset_id)
        base = self._base(spec.base_model)
        wishes = spec.wishes
        plan = plan_training(dataset, wishes, speed=self._speed(), base=base)
        symbols = most_symbols(dataset, base)
        check_memory(
            memory_needed(plan.network, plan.training, symbols, dataset.characters),
            self._memory_limit(),
        )
        base_version = base.id if base else None
        return NewJob(
            model=spec.model,
            dataset_id=dataset.id,
            base_version=base_version,
            spec=planned_document(spec, plan, base_version),
            spec_hash=digest,
            chosen=_reasons(plan),
            parameters={"network": asdict(plan.network), "training": asdict(plan.training)},
            tags=dict(spec.tags),
            seed=spec.training.seed,
            priority=spec.priority,
            max_attempts=spec.max_attempts,
        )

    def _base(self, reference: str | None) -> ModelVersion | None:
        if reference is None:
            return None
        try:
            base = self._index.resolve(reference)
        except UnknownModel as error:
            raise UnknownModel(error.message, param="base_model") from error
        self._index.require(base)
        return base


def _reasons(plan: TrainingPlan) -> list[dict[str, object]]:
    """The reason for each chosen value, as JSON."""
    return [{"fields": list(each.fields), "reason": each.reason} for each in plan.chosen]
