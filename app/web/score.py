"""``POST /v1/score`` and ``/v1/rank``: how likely texts are, as a whole and at each character.

What is told of a text is in ``reports``, bodies of NDJSON in ``score_lines``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from app.errors import InvalidInput
from app.web.answers import check_numbers, json_answer
from app.web.bodies import documented, json_body, read_json
from app.web.dependencies import ModelLease, ServedBy
from app.web.reports import Report
from app.web.schemas import (
    RankAnswer,
    RankRequest,
    ScoreAnswer,
    ScoreRequest,
)
from app.web.score_lines import answers
from app.web.streaming import Live, collect
from app.web.transcripts import LEAST_LOGPROB

router = APIRouter(tags=["scoring"])

NDJSON: Final = "application/x-ndjson"


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
        report = Report(served, lease, per_character, top)
        lines = answers(report, request)
        return Live(lines, NDJSON, watch=False, after=lease.release)
    body = await read_json(request, ScoreRequest)
    with await served.lease(body.model) as lease:
        report = Report(served, lease, body.per_character, body.top)
        texts = list(body.input)
        numbers = sum(map(report.numbers, texts))
        check_numbers(numbers, "input")
        pieces = await collect(request.receive, report.submit(texts))
        return await json_answer(
            lambda: {
                "object": "list",
                "model": lease.version.id,
                "data": report.items(texts, pieces),
                "usage": _usage(texts),
            },
            numbers,
        )


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
        report = Report(served, lease, False, 0)
        closed = report.closed if body.closed is None else body.closed
        if closed and not report.closed:
            raise InvalidInput(
                "A text model knows no end of a record.", param="closed", code="unsupported"
            )
        served.engine.check(_symbols(body))  # before anything is allocated
        texts = [body.prompt + candidate for candidate in body.candidates]
        pieces = await collect(request.receive, report.submit(texts, closed=closed))
        items = [
            _ranked(index, candidate, piece.read_logprobs[len(body.prompt) :], lease)
            for index, (candidate, piece) in enumerate(zip(body.candidates, pieces, strict=True))
        ]
        items.sort(key=lambda item: -item["logprob"])
        return JSONResponse({"object": "list", "model": lease.version.id, "data": items,
                             "usage": _usage(texts)})  # fmt: skip


def _symbols(body: RankRequest) -> int:
    """What the network would read at most: the prompt counts once for every candidate."""
    return len(body.candidates) * (len(body.prompt) + 2) + sum(map(len, body.candidates))


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


def _usage(texts: Sequence[str]) -> dict[str, int]:
    count = sum(map(len, texts))
    return {"prompt_tokens": count, "total_tokens": count}
