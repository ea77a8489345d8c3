"""Score texts on the engine with one held model version, for plain answers and NDJSON.

Takes texts, gives the engine's stream and the objects of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..charlm.scoring import Score
from ..engine import sequence as engine
from ..engine.sequence import Piece
from ..engine.stream import AsyncStream
from ..rendering.scores import ScoreRenderer
from .dependencies import Backend, ModelHold


class Scoring:
    """Scores texts with one held model version."""

    def __init__(self, served: Backend, held: ModelHold, details: bool, top: int) -> None:
        self._served = served
        self._held = held
        self._details = details
        self._top = top if details else 0
        self.renderer = ScoreRenderer(held.vocabulary, held.calibration, details=details)
        self.timeout_seconds = served.settings.request_seconds
        self.closed = held.card.corpus_format == "lines"

    def submit(self, texts: Sequence[str], closed: bool | None = None) -> AsyncStream:
        """Have the engine read the texts; it collects to one piece per text, with logprobs."""
        request = engine.Request(
            prompts=tuple(self._held.vocabulary.encode_each(texts)),
            max_symbols=0,
            scored=True,
            closed=self.closed if closed is None else closed,
            top=self._top,
            timeout_seconds=self.timeout_seconds,
        )
        return self._served.engine.submit(request, self._held.network)

    def numbers(self, text: str) -> int:
        """The most logprobs that the answer holds for a text."""
        return (len(text) + 1) * (1 + self._top) if self._details else 1

    def work(self, texts: Sequence[str]) -> int:
        """How much there is to add up and write for the texts, in logprobs."""
        return sum(map(self.numbers, texts)) + sum(map(len, texts))

    def items(self, texts: Sequence[str], pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """The answer's object for each text."""
        both = zip(texts, pieces, strict=True)
        return [self.item(index, text, piece) for index, (text, piece) in enumerate(both)]

    def item(self, index: int, text: str, piece: Piece) -> dict[str, Any]:
        """The answer's object for one text."""
        score = Score(np.array(piece.read_logprobs), np.array(piece.read_ranks))
        return self.renderer.score_object(index, text, score, piece.read_tops or None)
