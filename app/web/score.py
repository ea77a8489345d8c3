"""``POST /v1/score`` and ``/v1/rank``: how likely texts are, as a whole and at each character.

A body of NDJSON is answered line by line in constant memory, however long it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from app.charlm.scoring import Score
from app.charlm.vocabulary import BOUNDARY, UNKNOWN
from app.engine import sequence as engine
from app.engine.sequence import Piece
from app.errors import CharloomError, InvalidInput, Overloaded, TooLarge
from app.web.bodies import documented, json_body, parse_json, read_json
from app.web.dependencies import Backend, ModelLease, ServedBy
from app.web.problems import error_object, invalid, request_id
from app.web.schemas import (
    MOST_CHARACTERS,
    LineOfScores,
    RankAnswer,
    RankRequest,
    ScoreAnswer,
    ScoreRequest,
)
from app.web.streaming import Live, while_connected
from app.web.transcripts import LEAST_LOGPROB

router = APIRouter(tags=["scoring"])

NDJSON: Final = "application/x-ndjson"
_LINES_AT_ONCE: Final = 256
_CHARACTERS_AT_ONCE: Final = 65_536
_MOST_LINE_BYTES: Final = 4 << 20

Scored = tuple[str, Piece]


@router.post(
    "/v1/score",
    response_model=ScoreAnswer,
    openapi_extra=documented(ScoreRequest, **{NDJSON: {"type": "string"}}),
    summary="Score text",
)
async def score(
    request: Request,
    served: ServedBy,
    model: Annotated[str | None, Query(description="For NDJSON.", max_length=400)] = None,
    per_character: Annotated[bool, Query(description="For NDJSON.")] = False,
    top: Annotated[int, Query(description="For NDJSON.", ge=0, le=20)] = 0,
) -> Response:
    """Nats, bits per character, perplexity and percentile of each text."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == NDJSON:
        lease = await served.lease(model)
        report = _Report(served, lease, per_character, top)
        lines = _answers(report, request)
        return Live(lines, NDJSON, watch=False, after=lease.release)
    body = await read_json(request, ScoreRequest)
    with await served.lease(body.model) as lease:
        report = _Report(served, lease, body.per_character, body.top)
        texts = list(body.input)
        pieces = await while_connected(request.receive, report.read(texts))
        items = [report.item(i, each) for i, each in enumerate(zip(texts, pieces, strict=True))]
        return JSONResponse({"object": "list", "model": lease.version.id, "data": items,
                             "usage": _usage(texts)})  # fmt: skip


@router.post(
    "/v1/rank",
    response_model=RankAnswer,
    openapi_extra=documented(RankRequest),
    summary="Put candidates in order",
)
async def rank(
    request: Request, served: ServedBy, body: Annotated[RankRequest, json_body(RankRequest)]
) -> Response:
    """Candidates by their logprob after the prompt, the likeliest first."""
    with await served.lease(body.model) as lease:
        report = _Report(served, lease, False, 0)
        closed = report.closed if body.closed is None else body.closed
        if closed and not report.closed:
            raise InvalidInput(
                "A text model knows no end of a record.", param="closed", code="unsupported"
            )
        texts = [body.prompt + candidate for candidate in body.candidates]
        reading = report.read(texts, closed=closed)
        pieces = await while_connected(request.receive, reading)
        items = [
            _ranked(index, candidate, piece.read_logprobs[len(body.prompt) :], lease)
            for index, (candidate, piece) in enumerate(zip(body.candidates, pieces, strict=True))
        ]
        items.sort(key=lambda item: -item["logprob"])
        return JSONResponse({"object": "list", "model": lease.version.id, "data": items,
                             "usage": _usage(texts)})  # fmt: skip


def _ranked(
    index: int, candidate: str, logprobs: Sequence[float], lease: ModelLease
) -> dict[str, Any]:
    return {
        "object": "rank",
        "index": index,
        "candidate": candidate,
        "logprob": max(sum(logprobs), LEAST_LOGPROB),
        "characters": len(logprobs),
        "unknown_characters": lease.vocabulary.unknown_characters(candidate),
    }


class _Report:
    """Scores texts with one leased model."""

    def __init__(self, served: Backend, lease: ModelLease, details: bool, top: int) -> None:
        self._served = served
        self._lease = lease
        self._details = details
        self._top = top if details else 0
        self.closed = lease.card.corpus_format == "lines"

    async def read(self, texts: Sequence[str], closed: bool | None = None) -> list[Piece]:
        """One piece a text, with the logprobs of its symbols."""
        request = engine.Request(
            prompts=tuple(self._lease.vocabulary.encode(text) for text in texts),
            max_symbols=0,
            scored=True,
            closed=self.closed if closed is None else closed,
            top=self._top,
            timeout_seconds=self._served.settings.request_seconds,
        )
        return await self._served.engine.submit(request, self._lease.network).collect()

    def item(self, index: int, scored: Scored) -> dict[str, Any]:
        """What is told of one text."""
        text, piece = scored
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


def _usage(texts: Sequence[str]) -> dict[str, int]:
    count = sum(map(len, texts))
    return {"prompt_tokens": count, "total_tokens": count}


# --- NDJSON


async def _answers(report: _Report, request: Request) -> AsyncGenerator[bytes, None]:
    """An answer a line, in order; a line that is wrong gets an error in its place."""
    index = 0
    async for batch in _batches(_lines(request.stream())):
        texts = [each for each in batch if isinstance(each, str)]
        try:
            pieces = iter(await _patiently(report, texts) if texts else ())
            failed = None
        except CharloomError as error:
            failed = error
        told = []
        for each in batch:
            wrong = each if isinstance(each, CharloomError) else failed
            if wrong is not None:
                fields = {"index": index, "error": error_object(wrong, request_id(request.scope))}
            else:
                assert isinstance(each, str)
                fields = report.item(index, (each, next(pieces)))
            told.append(json.dumps(fields) + "\n")
            index += 1
        yield "".join(told).encode()


async def _patiently(report: _Report, texts: Sequence[str]) -> list[Piece]:
    """Scores; while the server is full the client's body waits instead of failing."""
    while True:
        try:
            return await report.read(texts)
        except Overloaded as error:
            if error.code != Overloaded.code:
                raise
            await asyncio.sleep(error.retry_after_seconds)


async def _lines(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes | TooLarge, None]:
    """The lines that are not blank; of one that is too long only the complaint is kept."""
    rest, dropping = b"", False
    async for piece in body:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if dropping or len(line) > _MOST_LINE_BYTES:
                yield _too_long()
            elif line.strip():
                yield line
            dropping = False
        if len(rest) > _MOST_LINE_BYTES:
            rest, dropping = b"", True
    if dropping:
        yield _too_long()
    elif rest.strip():
        yield rest


async def _batches(
    lines: AsyncIterator[bytes | TooLarge],
) -> AsyncGenerator[list[str | CharloomError], None]:
    batch: list[str | CharloomError] = []
    characters = 0
    async for line in lines:
        text = _text(line)
        characters += len(text) if isinstance(text, str) else 0
        batch.append(text)
        if len(batch) == _LINES_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _text(line: bytes | TooLarge) -> str | CharloomError:
    """The text of a line: a JSON string or ``{"input": …}``."""
    if isinstance(line, TooLarge):
        return line
    try:
        given = parse_json(line)
        return LineOfScores.model_validate(
            {"input": given} if isinstance(given, str) else given
        ).input
    except ValidationError as error:
        return invalid(error)
    except InvalidInput as error:
        return error


def _too_long() -> TooLarge:
    return TooLarge(f"A line may have {MOST_CHARACTERS:,} characters.", code="line_too_long")
