"""``POST /v1/score`` and ``/v1/rank``: how likely texts are, as a whole and at each character.

Bodies of NDJSON are read in ``score_lines``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ...engine.sequence import Piece
from ...errors import InvalidInput
from ...rendering.scores import RankAnswer, ScoreAnswer, score_usage
from ...store.layout import REFERENCE_LENGTH
from ..dependencies import ServedBy
from ..http.answers import check_numbers, json_answer
from ..http.bodies import documented, json_body, read_json, refuse_encoding
from ..http.streaming import Live, collect
from ..schemas import MOST_TOP, RankRequest, ScoreRequest
from ..score_lines import answers
from ..scoring import Scoring

router = APIRouter(tags=["scoring"])

NDJSON: Final = "application/x-ndjson"


@router.post(
    "/v1/score",
    response_model=ScoreAnswer,
    openapi_extra=documented(ScoreRequest, {NDJSON: {"type": "string"}}),
    summary="Score text",
)
async def score(
    request: Request,
    served: ServedBy,
    model: Annotated[
        str | None, Query(description="For NDJSON.", max_length=REFERENCE_LENGTH)
    ] = None,
    per_character: Annotated[bool, Query(description="For NDJSON.")] = False,
    top: Annotated[int, Query(description="For NDJSON.", ge=0, le=MOST_TOP)] = 0,
) -> Response:
    """Nats, bits per character, perplexity and percentile of each text."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == NDJSON:
        refuse_encoding(request)
        held = await served.hold(model)
        scoring = Scoring(served, held, per_character, top)
        lines = answers(scoring, request)
        return Live(lines, NDJSON, watch=False, after=held.release)
    body = await read_json(request, ScoreRequest)
    with await served.hold(body.model) as held:
        scoring = Scoring(served, held, body.per_character, body.top)
        texts = list(body.input)
        check_numbers(sum(map(scoring.numbers, texts)), "input")
        # No texts have no scores, as a body of no lines has none.
        pieces = await collect(request.receive, scoring.submit(texts)) if texts else []
        return await json_answer(
            lambda: {
                "object": "list",
                "model": held.version.id,
                "data": scoring.items(texts, pieces),
                "usage": score_usage(texts),
            },
            scoring.work(texts),
        )


@router.post(
    "/v1/rank",
    response_model=RankAnswer,
    openapi_extra=documented(RankRequest),
    summary="Rank candidates",
)
async def rank(
    request: Request, served: ServedBy, body: Annotated[RankRequest, json_body(RankRequest)]
) -> Response:
    """Candidates by their logprob after the prompt, likeliest first."""
    with await served.hold(body.model) as held:
        scoring = Scoring(served, held, False, 0)
        closed = scoring.closed if body.closed is None else body.closed
        if closed and not scoring.closed:
            raise InvalidInput(
                "closed must be false: in a text model, records have no end.",
                param="closed",
                code="unsupported",
            )
        served.engine.check(_symbols(body))  # before anything is allocated
        texts = [body.prompt + candidate for candidate in body.candidates]
        pieces = await collect(request.receive, scoring.submit(texts, closed=closed))
        return await json_answer(
            lambda: {
                "object": "list",
                "model": held.version.id,
                "data": _ranked(scoring, body, pieces),
                "usage": score_usage(texts),
            },
            scoring.work(texts),
        )


def _ranked(scoring: Scoring, body: RankRequest, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """The answer's object for each candidate, the likeliest first."""
    items = [
        scoring.renderer.rank_object(index, candidate, piece.read_logprobs[len(body.prompt) :])
        for index, (candidate, piece) in enumerate(zip(body.candidates, pieces, strict=True))
    ]
    return sorted(items, key=lambda item: -item["logprob"])


def _symbols(body: RankRequest) -> int:
    """The most symbols the network would read: the prompt counts once per candidate."""
    return len(body.candidates) * (len(body.prompt) + 2) + sum(map(len, body.candidates))
