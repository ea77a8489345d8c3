"""``POST /v1/score`` and ``/v1/rank``: how likely texts are, as a whole and at each character.

Bodies of NDJSON are read in ``score_lines``.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ...errors import InvalidInput
from ...rendering.scores import RankAnswer, ScoreAnswer, score_usage
from ...store.layout import REFERENCE_LENGTH
from ..dependencies import ServedBy
from ..http.answers import Many, json_answer
from ..http.bodies import documented, json_body, read_json, refuse_encoding
from ..http.streaming import Live, collect
from ..schemas import MOST_TOP, RankRequest, ScoreRequest
from ..score_lines import LinesAsked, answers
from ..scoring import Scoring

router = APIRouter(tags=["scoring"])

_ENTRIES: Final = 5  # what a score without its characters takes, in numbers

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
        with await served.hold(model) as held:  # only to find the version that answers
            asked = LinesAsked(held.version.id, per_character, top if per_character else 0)
        return Live(answers(served, asked, request), NDJSON, watch=False)
    body = await read_json(request, ScoreRequest)
    with await served.hold(body.model) as held:
        scoring = Scoring(served, held, body.per_character, body.top)
        texts = list(body.input)
        numbers = sum(map(scoring.numbers, texts))
        with served.answers.reserve(numbers, "input") as reservation:
            # No texts have no scores, as a body of no lines has none.
            pieces = await collect(request.receive, scoring.submit(texts)) if texts else []
            return await json_answer(
                lambda: {
                    "object": "list",
                    "model": held.version.id,
                    "data": Many(scoring.items(texts, pieces), 1),
                    "usage": score_usage(texts),
                },
                numbers,
                numbers if body.per_character else _ENTRIES * len(texts),
                reservation.handed_on(),
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
        symbols = _symbols(body)
        served.engine.check(symbols)  # before anything is allocated
        with served.answers.reserve(symbols, "candidates") as reservation:
            texts = [body.prompt + candidate for candidate in body.candidates]
            pieces = await collect(request.receive, scoring.submit(texts, closed=closed))
            start = len(body.prompt)
            items = [
                scoring.renderer.rank_object(index, candidate, piece.read_logprobs[start:])
                for index, (candidate, piece) in enumerate(
                    zip(body.candidates, pieces, strict=True)
                )
            ]
            items.sort(key=lambda item: -item["logprob"])
            answer = {"object": "list", "model": held.version.id, "data": items,
                      "usage": score_usage(texts)}  # fmt: skip
            written = _ENTRIES * len(items)
            return await json_answer(lambda: answer, symbols, written, reservation.handed_on())


def _symbols(body: RankRequest) -> int:
    """The most symbols the network would read: the prompt counts once per candidate."""
    return len(body.candidates) * (len(body.prompt) + 2) + sum(map(len, body.candidates))
