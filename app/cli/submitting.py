"""``charloom train --detach``: submit a file and a job, locally or to a server.

Any server that shares the local database runs its jobs.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ..errors import CharloomError, NotFound, StorageFailed
from ..rendering.choices import choice_line
from ..settings import Settings
from . import console
from .asked import Asked
from .remote import ask, connected


def submit(file: Path, asked: Asked, url: str | None, settings: Settings) -> None:
    """Make a dataset of ``file``, queue a job for it and say how to follow it."""
    if url is None:
        job = _submit_here(file, asked, settings)
    else:
        with connected(url) as client:
            job = _submit_there(client, file, asked)
    for each in job["chosen"]:
        console.err.print(choice_line(each), markup=False)
    console.out.print(job["id"])
    where = f" --url {url}" if url else ""
    if not url:
        console.err.print("A server that shares this data folder runs the job: charloom serve.")
    console.err.print(f"next: charloom jobs watch {job['id']}{where}", markup=False)


def _submit_here(file: Path, asked: Asked, settings: Settings) -> dict[str, Any]:
    from .local_submitting import submit_here

    dataset, job = submit_here(file, asked, settings)
    _warn(dataset)
    return job


def _submit_there(client: httpx.Client, file: Path, asked: Asked) -> dict[str, Any]:
    format = asked.format
    if format is None and asked.base_model is not None:  # as training here does
        with suppress(CharloomError):  # submitting the job says it better
            model = ask(client, "GET", f"/v1/models/{quote(asked.base_model, safe='@')}")
            format = model["card"]["corpus_format"]
    said = {"name": file.name} | ({} if format is None else {"format": format})
    try:
        with file.open("rb") as text:
            dataset = ask(client, "POST", "/v1/datasets", params=said, content=text)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {file}.", code="file_not_found") from error
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error.strerror}.") from error
    _warn(dataset)
    return ask(client, "POST", "/v1/jobs", json={**asked.document, "dataset": dataset["id"]})


def _warn(dataset: dict[str, Any]) -> None:
    for warning in dataset["warnings"]:
        console.err.print(f"note: {warning}", markup=False)
