"""``POST /v1/score`` and ``/v1/rank``: how likely texts are, as a whole and at each character.

Bodies of NDJSON are read in ``score_lines``.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from ...errors import InvalidInput
from ...rendering.scores import RankAnswer, ScoreAnswer, score_usage
from ...store.layout import REFERENCE_LENGTH
from ..dependencies import ServedBy
from ..http.answers import check_numbers, json_answer
from ..http.bodies import documented, json_body, read_json
from ..http.streaming import Live, collect
from ..schemas import MOST_TOP, RankRequest, ScoreRequest
from ..score_lines import answers
from ..scoring import Scoring

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
    model: Annotated[
        str | None, Query(description="For NDJSON.", max_length=REFERENCE_LENGTH)
    ] = None,
    per_character: Annotated[bool, Query(description="For NDJSON.")] = False,
    top: Annotated[int, Query(description="For NDJSON.", ge=0, le=MOST_TOP)] = 0,
) -> Response:
    """Nats, bits per character, perplexity and percentile of each text."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == NDJSON:
        held = await served.hold(model)
        scoring = Scoring(served, held, per_character, top)
        lines = answers(scoring, request)
        return Live(lines, NDJSON, watch=False, after=held.release)
    body = await read_json(request, ScoreRequest)
    with await served.hold(body.model) as held:
        scoring = Scoring(served, held, body.per_character, body.top)
        texts = list(body.input)
        numbers = sum(map(scoring.numbers, texts))
        check_numbers(numbers, "input")
        pieces = await collect(request.receive, scoring.submit(texts))
        return await json_answer(
            lambda: {
                "object": "list",
                "model": held.version.id,
                "data": scoring.items(texts, pieces),
                "usage": score_usage(texts),
            },
            numbers,
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
        items = [
            scoring.renderer.rank_object(index, candidate, piece.read_logprobs[len(body.prompt) :])
            for index, (candidate, piece) in enumerate(zip(body.candidates, pieces, strict=True))
        ]
        items.sort(key=lambda item: -item["logprob"])
        return JSONResponse({"object": "list", "model": held.version.id, "data": items,
                             "usage": score_usage(texts)})  # fmt: skip


def _symbols(body: RankRequest) -> int:
    """The most symbols the network would read: the prompt counts once per candidate."""
    return len(body.candidates) * (len(body.prompt) + 2) + sum(map(len, body.candidates))
