"""Scores of texts as JSON: the same object for answers, NDJSON and the command line.

Takes a text and the network's scores of its symbols. Knows no engine and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from ..charlm.scoring import Calibration, Score
from ..charlm.vocabulary import BOUNDARY, Vocabulary

LEAST_LOGPROB: Final = -9999.0
"""Replaces −∞, which JSON cannot express."""

Top = Sequence[tuple[int, float]]
"""The likeliest symbols at one position: ids and logprobs."""


class Alternative(BaseModel):
    character: str | None
    logprob: float


class CharacterScore(BaseModel):
    character: str | None = Field(description="null for the boundary that closes a line.")
    logprob: float
    rank: int
    top: list[Alternative]


class ScoreItem(BaseModel):
    object: Literal["score"]
    index: int
    characters: int = Field(description="Predicted symbols: a line's closing boundary counts.")
    nats: float
    bits_per_character: float
    perplexity: float
    percentile: float | None = Field(
        description="Percentage of held-out records that are less surprising."
    )
    unknown_characters: str
    per_character: list[CharacterScore] | None


class ScoreUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class ScoreAnswer(BaseModel):
    object: Literal["list"]
    model: str
    data: list[ScoreItem]
    usage: ScoreUsage


class RankItem(BaseModel):
    object: Literal["rank"]
    index: int = Field(description="Position in the request.")
    candidate: str
    logprob: float = Field(description="Natural logprob of the candidate after the prompt.")
    characters: int
    unknown_characters: str


class RankAnswer(BaseModel):
    object: Literal["list"]
    model: str
    data: list[RankItem]
    usage: ScoreUsage


class ScoreRenderer:
    """Scores of one model version as objects; ``details`` adds every character."""

    def __init__(
        self, vocabulary: Vocabulary, calibration: Calibration | None, *, details: bool
    ) -> None:
        self._vocabulary = vocabulary
        self._calibration = calibration
        self._details = details

    @cached_property
    def _names(self) -> list[str | None]:
        return shown_names(self._vocabulary)

    def score_object(
        self, index: int, text: str, score: Score, tops: Sequence[Top] | None = None
    ) -> dict[str, Any]:
        """The score of one text; ``tops`` are the alternatives of each symbol."""
        characters = list(self.characters(text, score, tops)) if self._details else None
        return {**self.summary(index, text, score), "per_character": characters}

    def summary(self, index: int, text: str, score: Score) -> dict[str, Any]:
        """The score of one text as a whole."""
        bits = score.bits_per_character
        calibration = self._calibration if score.symbols else None
        return {
            "object": "score",
            "index": index,
            "characters": score.symbols,
            "nats": score.nats,
            "bits_per_character": bits,
            "perplexity": score.perplexity,
            "percentile": None if calibration is None else calibration.percentile(bits),
            "unknown_characters": self._vocabulary.unknown_characters(text),
        }

    def rank_object(self, index: int, candidate: str, logprobs: Sequence[float]) -> dict[str, Any]:
        """The score of one candidate, from the ``logprobs`` of its symbols after the prompt."""
        return {
            "object": "rank",
            "index": index,
            "candidate": candidate,
            "logprob": max(sum(logprobs), LEAST_LOGPROB),
            "characters": len(logprobs),
            "unknown_characters": self._vocabulary.unknown_characters(candidate),
        }

    def characters(
        self, text: str, score: Score, tops: Sequence[Top] | None
    ) -> Iterator[dict[str, Any]]:
        """The score of each character, one after the other."""
        shown = chain(text, (None,))  # the closing boundary is not a character
        each_top = iter(tops) if tops else repeat(())
        both = zip(score.logprobs, score.ranks, shown, each_top, strict=False)
        for logprob, rank, character, top in both:
            yield {
                "character": character,
                "logprob": max(float(logprob), LEAST_LOGPROB),
                "rank": int(rank),
                "top": alternatives(self._names, top),
            }


def shown_names(vocabulary: Vocabulary) -> list[str | None]:
    """What answers call each symbol: the boundary is not a character, so it is None."""
    names: list[str | None] = list(vocabulary.names)
    names[BOUNDARY] = None
    return names


def alternatives(names: Sequence[str | None], top: Iterable[tuple[int, float]]) -> list[Any]:
    """An object for each of the likeliest symbols at one position."""
    # Without calls: with 20 alternatives this is most of the work of an answer.
    least = LEAST_LOGPROB
    return [
        {"character": names[symbol], "logprob": value if value > least else least}
        for symbol, value in top
    ]


def score_usage(texts: Sequence[str]) -> dict[str, int]:
    """How many characters were read."""
    count = sum(map(len, texts))
    return {"prompt_tokens": count, "total_tokens": count}
