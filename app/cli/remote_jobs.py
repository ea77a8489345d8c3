"""Jobs on a server, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from ..rendering.ids import bare_id, shown
from ..rendering.lists import PAGE_BOUND
from .remote import ask


class RemoteJobs:
    """Jobs on a server, over HTTP."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def listed(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        asked = {"limit": limit} | ({} if state is None else {"state": state})
        found: list[dict[str, Any]] = ask(self._client, "GET", "/v1/jobs", params=asked)["data"]
        return found

    def get(self, id: str) -> dict[str, Any]:
        return ask(self._client, "GET", f"/v1/jobs/{_in_path(id)}")

    def steer(self, id: str, verb: str) -> dict[str, Any]:
        return ask(self._client, "POST", f"/v1/jobs/{_in_path(id)}/{verb}")

    def delete(self, id: str) -> None:
        ask(self._client, "DELETE", f"/v1/jobs/{_in_path(id)}")

    def events(self, id: str, after: int) -> list[dict[str, Any]]:
        asked = {"after": after, "limit": PAGE_BOUND.most}
        path = f"/v1/jobs/{_in_path(id)}/events"
        found: list[dict[str, Any]] = ask(self._client, "GET", path, params=asked)["data"]
        return found


def _in_path(id: str) -> str:
    return shown("job", bare_id("job", id))
