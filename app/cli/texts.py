"""Write and score texts for ``generate`` and ``score``: in this process or on a server.

Both give the same fields as the HTTP interface.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Protocol

import httpx

from ..catalog.models import Registry
from ..charlm.sampling import Sampling
from ..charlm.scoring import score as score_records
from ..engine.engine import Engine
from ..engine.resident import Loaded
from ..engine.sequence import Request
from ..errors import InvalidInput
from ..rendering.scores import ScoreRenderer
from ..settings import Settings
from ..wiring.full import FullInstallation
from .remote import checked, connected

_RECORDS_AT_ONCE: Final = 256
_CHARACTERS_AT_ONCE: Final = 65_536


class Texts(Protocol):
    """Writes and scores texts."""

    def generate(self, name: str, body: dict[str, Any]) -> Iterator[str]:
        """The texts of ``n`` choices, one after another."""

    def score(self, name: str, texts: Iterable[str], *, details: bool) -> Iterator[dict[str, Any]]:
        """A score for each text, in order."""


@contextmanager
def texts_of(url: str | None, settings: Settings) -> Iterator[Texts]:
    """The server at ``url``, or the local store."""
    if url is not None:
        with connected(url) as client:
            yield RemoteTexts(client)
        return
    with FullInstallation(settings) as installation:
        installation.registry.synchronise()
        yield LocalTexts(installation.registry)


class LocalTexts:
    """Models of the local store, loaded into this process."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def generate(self, name: str, body: dict[str, Any]) -> Iterator[str]:
        loaded = self._load(name)
        drawing = {k: body[k] for k in ("temperature", "top_k", "top_p", "min_p", "seed")}
        request = Request(
            prompts=(loaded.vocabulary.encode(body["prompt"]),),
            sampling=Sampling(**drawing),
            max_symbols=body["max_tokens"],
            choices=body["n"],
            boundary=loaded.card.corpus_format == "lines",
        )
        engine = Engine()
        engine.start()
        try:
            for piece in engine.submit_blocking(request, loaded).collect():
                yield loaded.vocabulary.decode(piece.ids)
        finally:
            engine.close()

    def score(self, name: str, texts: Iterable[str], *, details: bool) -> Iterator[dict[str, Any]]:
        loaded = self._load(name)
        closed = loaded.card.corpus_format == "lines"
        renderer = ScoreRenderer(loaded.vocabulary, loaded.calibration, details=details)
        index = 0
        for batch in _batches(texts):
            records = [loaded.vocabulary.encode(text) for text in batch]
            scores = score_records(loaded.decoder, records, closed=closed)
            for text, score in zip(batch, scores, strict=True):
                yield renderer.score_object(index, text, score)
                index += 1

    def _load(self, name: str) -> Loaded:
        return Loaded.from_artifact(self._registry.open(self._registry.resolve(name)))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Batches of texts: many short ones or a few long ones."""
    source = iter(texts)
    while first := list(islice(source, 1)):
        batch, characters = first, len(first[0])
        while len(batch) < _RECORDS_AT_ONCE and characters < _CHARACTERS_AT_ONCE:
            following = next(source, None)
            if following is None:
                break
            batch.append(following)
            characters += len(following)
        yield batch


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
