"""Submit a file and a job to the local database."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UnknownModel
from ..jobs.spec import JobSpec
from ..rendering.datasets import dataset_object
from ..rendering.jobs import job_object
from ..settings import Settings
from ..wiring.full import FullInstallation
from .asked import Asked


def submit_here(
    file: Path, asked: Asked, settings: Settings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The dataset and the job, as JSON."""
    with FullInstallation(settings) as installation:
        format = asked.format
        if format is None and asked.base_model is not None:  # as training here does
            with suppress(UnknownModel):  # submitting the job says it better
                format = installation.registry.resolve(asked.base_model).card["corpus_format"]
        dataset = dataset_object(installation.datasets.add(file, file.name, format))
        spec = JobSpec.parse({**asked.document, "dataset": dataset["id"]})
        return dataset, job_object(installation.jobs.submit(spec))
