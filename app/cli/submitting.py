"""``charloom train --detach``: submit a file and a job, locally or to a server.

Any server that shares the local database runs its jobs.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ..charlm.corpus.format import CorpusFormat
from ..errors import CharloomError, NotFound, StorageFailed, UnknownModel
from ..jobs.spec import JobSpec
from ..rendering.choices import choice_line
from ..rendering.datasets import dataset_object
from ..rendering.jobs import job_object
from ..settings import Settings
from ..wiring.full import FullInstallation
from . import console
from .remote import ask, connected


def submit(
    file: Path,
    document: dict[str, Any],
    format: CorpusFormat | None,
    url: str | None,
    settings: Settings,
) -> None:
    """Make a dataset of ``file``, queue a job for it and say how to follow it."""
    if url is None:
        job = _submit_here(file, document, format, settings)
    else:
        with connected(url) as client:
            job = _submit_there(client, file, document, format)
    for each in job["chosen"]:
        console.err.print(choice_line(each), markup=False)
    console.out.print(job["id"])
    where = f" --url {url}" if url else ""
    if not url:
        console.err.print("A server that shares this data folder runs the job: charloom serve.")
    console.err.print(f"next: charloom jobs watch {job['id']}{where}", markup=False)


def _submit_here(
    file: Path, document: dict[str, Any], format: CorpusFormat | None, settings: Settings
) -> dict[str, Any]:
    with FullInstallation(settings) as installation:
        base = document["base_model"]
        if format is None and base is not None:  # as training here does
            with suppress(UnknownModel):  # submitting says it better
                format = installation.registry.resolve(base).card["corpus_format"]
        dataset = dataset_object(installation.datasets.add(file, file.name, format))
        _warn(dataset)
        spec = JobSpec.parse({**document, "dataset": dataset["id"]})
        return job_object(installation.jobs.submit(spec))


def _submit_there(
    client: httpx.Client, file: Path, document: dict[str, Any], format: CorpusFormat | None
) -> dict[str, Any]:
    base = document["base_model"]
    if format is None and base is not None:
        with suppress(CharloomError):
            model = ask(client, "GET", f"/v1/models/{quote(base, safe='@')}")
            format = model["card"]["corpus_format"]
    asked = {"name": file.name} | ({} if format is None else {"format": format})
    try:
        with file.open("rb") as text:
            dataset = ask(client, "POST", "/v1/datasets", params=asked, content=text)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {file}.", code="file_not_found") from error
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error.strerror}.") from error
    _warn(dataset)
    return ask(client, "POST", "/v1/jobs", json={**document, "dataset": dataset["id"]})


def _warn(dataset: dict[str, Any]) -> None:
    for warning in dataset["warnings"]:
        console.err.print(f"note: {warning}", markup=False)
