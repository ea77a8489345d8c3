"""Where ``generate``, ``score`` and ``models`` find models: the local store, or a server.

Both give the same fields as the HTTP interface.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Protocol

import httpx
import numpy as np

from app.charlm.sampling import Sampling
from app.charlm.scoring import Score
from app.charlm.scoring import score as score_records
from app.database.session import Database
from app.engine.engine import Engine
from app.engine.resident import Loaded
from app.engine.sequence import Request
from app.errors import CharloomError, InvalidInput, StorageFailed
from app.registry import Registry
from app.settings import Settings
from app.store.blobs import BlobStore

_RECORDS_AT_ONCE: Final = 256
_CHARACTERS_AT_ONCE: Final = 65_536


class Source(Protocol):
    """Models somewhere."""

    def models(self) -> list[dict[str, Any]]:
        """Every model, as ``GET /v1/models`` lists them."""

    def generate(self, name: str, body: dict[str, Any]) -> Iterator[str]:
        """Pieces of text of ``n`` choices, one after another; a choice ends with None's place."""

    def score(self, name: str, texts: Iterable[str], *, details: bool) -> Iterator[dict[str, Any]]:
        """A score for each text, in order."""


@contextmanager
def registry(settings: Settings) -> Iterator[Registry]:
    """The local registry, with what was copied into the store by hand."""
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
        local = Registry(database, BlobStore(settings.models_dir))
        local.synchronise()
        yield local
    finally:
        database.close()


@contextmanager
def source(url: str | None, settings: Settings) -> Iterator[Source]:
    """The server at ``url``, or the local store."""
    if url is None:
        with registry(settings) as local:
            yield LocalStore(local)
        return
    with server(url) as client:
        yield RemoteServer(client)


@contextmanager
def server(url: str) -> Iterator[httpx.Client]:
    """A connection to the server at ``url``, with the key of the environment."""
    key = os.environ.get("CHARLOOM_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=600.0) as client:
            yield client
    except httpx.TimeoutException as error:
        raise StorageFailed(f"The server at {url} did not answer in time.") from error
    except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise InvalidInput(f"No server answers at {url}: {error}.", param="url") from error


class LocalStore:
    """Models of the local store, loaded into this process."""

    def __init__(self, local: Registry) -> None:
        self._registry = local

    def models(self) -> list[dict[str, Any]]:
        return [
            {"id": each.name, "version": each.version, "aliases": each.aliases, "card": each.card}
            for each in self._registry.list()
        ]

    def _load(self, name: str) -> Loaded:
        return Loaded.from_artifact(self._registry.open(self._registry.resolve(name)))

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
        for batch in _batches(texts):
            records = [loaded.vocabulary.encode(text) for text in batch]
            for text, score in zip(
                batch, score_records(loaded.decoder, records, closed=closed), strict=True
            ):
                yield _fields(loaded, text, score, details)


def _fields(loaded: Loaded, text: str, score: Score, details: bool) -> dict[str, Any]:
    bits = score.bits_per_character
    known = loaded.calibration is not None and score.symbols
    shown = [*text, None]
    return {
        "characters": score.symbols,
        "nats": score.nats,
        "bits_per_character": bits,
        "perplexity": score.perplexity,
        "percentile": loaded.calibration.percentile(bits) if loaded.calibration and known else None,
        "unknown_characters": loaded.vocabulary.unknown_characters(text),
        "per_character": [
            {"character": shown[place], "logprob": logprob, "rank": rank}
            for place, (logprob, rank) in enumerate(
                zip(score.logprobs.tolist(), np.asarray(score.ranks).tolist(), strict=True)
            )
        ]
        if details
        else None,
    }


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts side by side: many short ones, or a few long ones."""
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


class RemoteServer:
    """Models of a server, over HTTP."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def models(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            after = {"after": found[-1]["id"]} if found else {}
            answer = self._client.get("/v1/models", params={"limit": 100, **after})
            page = checked(answer).json()
            found += page["data"]
            if not page["has_more"]:
                return found

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


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer; raises the error that it holds."""
    if not answer.is_error:
        return answer
    try:
        error = answer.json()["error"]
        raise CharloomError(error["message"], param=error["param"], code=error["code"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise CharloomError(
            f"The server answered {answer.status_code}; is it Charloom's?"
        ) from wrong
