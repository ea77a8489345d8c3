"""What a runner trains: the plan, the corpus and the lineage of its job.

Takes an ``Assignment`` and the datasets; reads the job's text once. Knows no lease.
"""

from __future__ import annotations

from ..catalog.datasets import Datasets
from ..charlm.network_config import NetworkConfig
from ..charlm.schedule import TrainingConfig
from ..charlm.vocabulary import Vocabulary
from ..errors import InvalidInput, NotFound
from ..store.artifact import Lineage
from ..training.planning import TrainingPlan
from ..training.prepare import Prepared, prepare
from .runner_door import Assignment


def plan_of(job: Assignment) -> TrainingPlan:
    """The plan that was made when the job was submitted."""
    return TrainingPlan(
        NetworkConfig(**job.parameters["network"]),
        TrainingConfig(**{**job.parameters["training"], "plan": ()}),
    )


def read_corpus(datasets: Datasets, job: Assignment, known: Vocabulary | None) -> Prepared:
    """The job's corpus; ``known`` is the vocabulary of the model version it starts from.

    Raises NotFound if the dataset is gone, InvalidInput if its file has changed, StorageFailed
    if the file is not in the store now.
    """
    if job.dataset_id is None:
        raise NotFound("The job's dataset was deleted.", code="dataset_not_found")
    dataset = datasets.get(job.dataset_id)
    requested = job.spec["training"]
    with datasets.local(dataset) as path:
        prepared = prepare(
            path,
            format=dataset.format,
            validation_fraction=requested["validation_fraction"],
            test_fraction=requested["test_fraction"],
            seed=requested["seed"],
            known=known,
            scratch=datasets.scratch_folder(),
        )
    if prepared.profile.sha256 != dataset.sha256:
        raise InvalidInput(
            "The file of the dataset is not the one that was uploaded; upload it again.",
            code="dataset_changed",
        )
    return prepared


def lineage_of(job: Assignment) -> Lineage:
    """The origin of the job's model, for its card; raises InvalidInput."""
    source = job.spec["tags"].get("corpus")  # set by train --detach --corpus
    dataset = f"dataset {job.spec['dataset']}"
    corpus = f"{source} ({dataset})" if source else dataset
    return Lineage.of(corpus=corpus, base_model=job.base_version)
