"""Write and score texts with models on a server, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from ..errors import InvalidInput
from .remote import checked


class RemoteTexts:
    """Models on a server, over HTTP."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def generate(self, name: str, body: dict[str, Any]) -> Iterator[str]:
        answer = self._client.post("/v1/completions", json={"model": name, **body})
        for choice in checked(answer).json()["choices"]:
            yield choice["text"]

    def score(self, name: str, texts: Iterable[str], *, details: bool) -> Iterator[dict[str, Any]]:
        body = (json.dumps(text).encode() + b"\n" for text in texts)
        asked = {"model": name, "per_character": str(details).lower()}
        headers = {"content-type": "application/x-ndjson"}
        with self._client.stream(
            "POST", "/v1/score", params=asked, content=body, headers=headers
        ) as answer:
            if answer.is_error:
                answer.read()
            for line in checked(answer).iter_lines():
                fields = json.loads(line)
                if "error" in fields:
                    raise InvalidInput(fields["error"]["message"], code=fields["error"]["code"])
                yield fields
