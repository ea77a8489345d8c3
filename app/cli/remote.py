"""Talk to a server over HTTP, for every command that takes ``--url``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from ..errors import CharloomError, InvalidInput, StorageFailed
from ..rendering.lists import PAGE_BOUND
from ..settings import checked_key


@contextmanager
def connected(url: str) -> Iterator[httpx.Client]:
    """A connection to the server at ``url``, with the key from the environment.

    Raises InvalidInput for a key that cannot be one.
    """
    try:
        with httpx.Client(base_url=url.rstrip("/"), headers=_key(), timeout=600.0) as client:
            yield client
    except httpx.TimeoutException as error:
        raise StorageFailed(f"The server at {url} did not answer in time.") from error
    except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise InvalidInput(f"No server answers at {url}: {error}.", param="url") from error


def _key() -> dict[str, str]:
    """The header with the key, by the server's rules; raises InvalidInput for no possible key."""
    given = os.environ.get("CHARLOOM_API_KEY")
    if given is None:
        return {}
    try:
        return {"authorization": f"Bearer {checked_key(given)}"}
    except ValueError as error:
        name = "CHARLOOM_API_KEY"
        raise InvalidInput(f"{name} {error}", param=name) from error


def ask(client: httpx.Client, method: str, path: str, **rest: Any) -> dict[str, Any]:
    """The JSON of an answer; raises the error in it."""
    answer: dict[str, Any] = checked(client.request(method, path, **rest)).json()
    return answer


def every(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """All rows of a list, page by page."""
    after: dict[str, Any] = {}
    while True:
        page = ask(client, "GET", path, params={"limit": PAGE_BOUND.most, **after})
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer; raises the error in it."""
    if not answer.is_error:
        return answer
    try:
        error = answer.json()["error"]
        raise CharloomError(error["message"], param=error["param"], code=error["code"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise CharloomError(
            f"The server answered {answer.status_code}; is it a Charloom server?"
        ) from wrong
