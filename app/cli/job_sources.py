"""Where ``jobs`` and ``train --detach`` find jobs: the local database, or a server.

Both give the same fields as the HTTP interface. Jobs put into the local database
are run by whichever server shares it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from app.charlm.windows import CorpusFormat
from app.cli.sources import checked, server
from app.database.session import Database
from app.dataset_store import Datasets, open_datasets
from app.errors import NotFound, StorageFailed
from app.jobs.assembly import build
from app.jobs.facade import Jobs
from app.jobs.spec import JobSpec
from app.registry import Registry
from app.settings import Settings
from app.store.blobs import BlobStore
from app.web.events import told as event_told
from app.web.ids import bare_id, shown
from app.web.jobs import told as job_told


class JobSource(Protocol):
    """Jobs somewhere; ids with their prefix."""

    def listed(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """Jobs, newest first."""

    def get(self, id: str) -> dict[str, Any]:
        """One job; raises NotFound or what the server said."""

    def steer(self, id: str, verb: str) -> dict[str, Any]:
        """Cancel, pause or resume."""

    def delete(self, id: str) -> None:
        """Remove a finished job."""

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        """What happened after an event."""

    def upload(self, file: Path, format: CorpusFormat | None) -> dict[str, Any]:
        """Make a dataset of a file."""

    def submit(self, document: dict[str, Any]) -> dict[str, Any]:
        """Queue a job."""


@contextmanager
def job_source(url: str | None, settings: Settings) -> Iterator[JobSource]:
    """The server at ``url``, or the local database."""
    if url is not None:
        with server(url) as client:
            yield RemoteJobs(client)
        return
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
        registry = Registry(database, BlobStore(settings.models_dir))
        datasets = open_datasets(settings, database)
        yield LocalJobs(build(settings, database, registry, datasets).jobs, datasets)
    finally:
        database.close()


class LocalJobs:
    """Jobs in the local database."""

    def __init__(self, jobs: Jobs, datasets: Datasets) -> None:
        self._jobs = jobs
        self._datasets = datasets

    def listed(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        return [job_told(job) for job in self._jobs.list(state=state, limit=limit).items]

    def get(self, id: str) -> dict[str, Any]:
        return job_told(self._jobs.get(bare_id("job", id)))

    def steer(self, id: str, verb: str) -> dict[str, Any]:
        steps = {"cancel": self._jobs.cancel, "pause": self._jobs.pause,
                 "resume": self._jobs.resume}  # fmt: skip
        return job_told(steps[verb](bare_id("job", id)))

    def delete(self, id: str) -> None:
        self._jobs.delete(bare_id("job", id))

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        found = self._jobs.events(bare_id("job", id), after=after, limit=100)
        return [event_told(event) for event in found]

    def upload(self, file: Path, format: CorpusFormat | None) -> dict[str, Any]:
        dataset = self._datasets.add(file, file.name, format)
        return {"id": shown("dataset", dataset.id), "warnings": dataset.profile["warnings"]}

    def submit(self, document: dict[str, Any]) -> dict[str, Any]:
        return job_told(self._jobs.submit(JobSpec.parse(document)))


class RemoteJobs:
    """Jobs of a server, over HTTP."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def listed(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        asked = {"limit": limit} | ({} if state is None else {"state": state})
        found: list[dict[str, Any]] = self._ask("GET", "/v1/jobs", params=asked)["data"]
        return found

    def get(self, id: str) -> dict[str, Any]:
        return self._ask("GET", f"/v1/jobs/{_in_path(id)}")

    def steer(self, id: str, verb: str) -> dict[str, Any]:
        return self._ask("POST", f"/v1/jobs/{_in_path(id)}/{verb}")

    def delete(self, id: str) -> None:
        self._ask("DELETE", f"/v1/jobs/{_in_path(id)}")

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        asked = {"after": after, "limit": 100}
        path = f"/v1/jobs/{_in_path(id)}/events"
        found: list[dict[str, Any]] = self._ask("GET", path, params=asked)["data"]
        return found

    def upload(self, file: Path, format: CorpusFormat | None) -> dict[str, Any]:
        asked = {"name": file.name} | ({} if format is None else {"format": format})
        try:
            with file.open("rb") as text:
                return self._ask("POST", "/v1/datasets", params=asked, content=text)
        except FileNotFoundError as error:
            raise NotFound(f"There is no file {file}.", code="file_not_found") from error
        except OSError as error:
            raise StorageFailed(f"{file} cannot be read: {error.strerror}.") from error

    def submit(self, document: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/v1/jobs", json=document)

    def _ask(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        answer: dict[str, Any] = checked(self._client.request(method, path, **rest)).json()
        return answer


def _in_path(id: str) -> str:
    return shown("job", bare_id("job", id))
