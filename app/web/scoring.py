"""Score texts on the engine with one held model version, for plain answers and NDJSON.

Takes texts, gives the engine's stream and the objects of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..charlm.scoring import Score
from ..engine import sequence as engine
from ..engine.piece import PIECE_NUMBERS, Piece
from ..engine.stream import AsyncStream
from ..rendering.scores import ScoreRenderer
from .dependencies import Backend, ModelHold
from .http.answers import Many


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
        """The numbers that are kept for a text."""
        return numbers_of(text, self._top)

    def items(self, texts: Sequence[str], pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
        """The answer's object for each text."""
        both = zip(texts, pieces, strict=True)
        return (self.item(index, text, piece) for index, (text, piece) in enumerate(both))

    def item(self, index: int, text: str, piece: Piece) -> dict[str, Any]:
        """The answer's object for one text; its characters are made while it is written."""
        score = Score(np.frombuffer(piece.read_logprobs), np.frombuffer(piece.read_ranks, "i4"))
        characters = self.renderer.characters(text, score, piece.read_tops or None)
        shown = Many(characters) if self._details else None
        return {**self.renderer.summary(index, text, score), "per_character": shown}


def numbers_of(text: str, top: int) -> int:
    """The numbers that are kept for a text: its symbols, and ``top`` alternatives of each."""
    return (len(text) + 1) * (1 + top) + PIECE_NUMBERS
