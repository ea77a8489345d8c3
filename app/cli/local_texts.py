"""Write and score texts with models of the local store, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from ..charlm.sampling import Sampling
from ..charlm.scoring import score as score_records
from ..engine.resident import Loaded
from ..engine.sequence import Request
from ..rendering.scores import ScoreRenderer
from ..settings import Settings
from ..wiring.full import FullInstallation

_RECORDS_AT_ONCE: Final = 256
_CHARACTERS_AT_ONCE: Final = 65_536


@contextmanager
def local_texts(settings: Settings) -> Iterator[LocalTexts]:
    """Texts of the models in the store that the settings name."""
    with FullInstallation(settings) as installation:
        installation.registry.synchronise()
        yield LocalTexts(installation)


class LocalTexts:
    """Models of the local store, loaded into this process."""

    def __init__(self, installation: FullInstallation) -> None:
        self._registry = installation.registry
        self._engine = installation.engine

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
        self._engine.start()
        try:
            for piece in self._engine.submit_blocking(request, loaded).collect():
                yield loaded.vocabulary.decode(piece.ids)
        finally:
            self._engine.close()

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
