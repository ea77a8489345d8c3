"""Where ``charloom jobs`` finds jobs: the local database, or a server.

Both give the same fields as the HTTP interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..settings import Settings


class JobSource(Protocol):
    """Jobs in one place; ids have their prefix."""

    def listed(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """Jobs, newest first."""

    def get(self, id: str) -> dict[str, Any]:
        """One job; raises NotFound or the server's error."""

    def steer(self, id: str, verb: str) -> dict[str, Any]:
        """Cancel, pause or resume."""

    def delete(self, id: str) -> None:
        """Remove a finished job."""

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        """The events after the one with the id ``after``."""


@contextmanager
def job_source(url: str | None, settings: Settings) -> Iterator[JobSource]:
    """The server at ``url``, or the local database."""
    if url is not None:
        from .remote import connected
        from .remote_jobs import RemoteJobs

        with connected(url) as client:
            yield RemoteJobs(client)
        return
    from .local_jobs import local_jobs

    with local_jobs(settings) as jobs:
        yield jobs
