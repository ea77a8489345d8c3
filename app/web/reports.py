"""What is told of a scored text: one object for plain answers and for NDJSON alike.

Takes texts and the engine's pieces, gives dictionaries. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.charlm.scoring import Score
from app.charlm.vocabulary import BOUNDARY, UNKNOWN
from app.engine import sequence as engine
from app.engine.sequence import Piece
from app.engine.stream import AsyncStream
from app.web.dependencies import Backend, ModelLease
from app.web.transcripts import LEAST_LOGPROB


class Report:
    """Scores texts with one leased model."""

    def __init__(self, served: Backend, lease: ModelLease, details: bool, top: int) -> None:
        self._served = served
        self._lease = lease
        self._details = details
        self._top = top if details else 0
        self.timeout_seconds = served.settings.request_seconds
        self.closed = lease.card.corpus_format == "lines"

    def submit(self, texts: Sequence[str], closed: bool | None = None) -> AsyncStream:
        """The engine's reading of the texts: in the end one piece each, with logprobs."""
        request = engine.Request(
            prompts=tuple(self._lease.vocabulary.encode(text) for text in texts),
            max_symbols=0,
            scored=True,
            closed=self.closed if closed is None else closed,
            top=self._top,
            timeout_seconds=self.timeout_seconds,
        )
        return self._served.engine.submit(request, self._lease.network)

    def numbers(self, text: str) -> int:
        """How many logprobs are told of a text at most."""
        return (len(text) + 1) * (1 + self._top) if self._details else 1

    def items(self, texts: Sequence[str], pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """What is told of each text."""
        both = zip(texts, pieces, strict=True)
        return [self.item(index, text, piece) for index, (text, piece) in enumerate(both)]

    def item(self, index: int, text: str, piece: Piece) -> dict[str, Any]:
        """What is told of one text."""
        total = Score(np.array(piece.read_logprobs), np.array(piece.read_ranks))
        calibration = self._lease.calibration
        known = calibration is not None and total.symbols > 0
        return {
            "object": "score",
            "index": index,
            "characters": total.symbols,
            "nats": total.nats,
            "bits_per_character": total.bits_per_character,
            "perplexity": total.perplexity,
            "percentile": calibration.percentile(total.bits_per_character)
            if calibration is not None and known
            else None,
            "unknown_characters": self._lease.vocabulary.unknown_characters(text),
            "per_character": self._characters(text, piece) if self._details else None,
        }

    def _characters(self, text: str, piece: Piece) -> list[dict[str, Any]]:
        shown: list[str | None] = [*text, None]  # the closing boundary is no character
        tops = piece.read_tops or [[]] * len(piece.read_logprobs)
        return [
            {
                "character": shown[place],
                "logprob": max(logprob, LEAST_LOGPROB),
                "rank": piece.read_ranks[place],
                "top": [self._alternative(*each) for each in tops[place]],
            }
            for place, logprob in enumerate(piece.read_logprobs)
        ]

    def _alternative(self, symbol: int, logprob: float) -> dict[str, Any]:
        named = None if symbol == BOUNDARY else self._lease.vocabulary.symbol(symbol)
        assert symbol != UNKNOWN or named == "<unknown>"
        return {"character": named, "logprob": max(logprob, LEAST_LOGPROB)}
