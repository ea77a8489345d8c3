"""``POST /v1/completions``: turn a body into one engine request, its pieces into an answer.

Text stops here: everything below works on ids. One object builds both plain answers and
streams, so that they agree.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...bounds import EXACT
from ...charlm.sampling import Sampling
from ...charlm.vocabulary import UNKNOWN, Vocabulary
from ...engine import sequence as engine
from ...engine.piece import PIECE_NUMBERS, Piece
from ...engine.sequence import StopRule
from ...engine.stream import AsyncStream
from ...errors import CharloomError, InvalidInput
from ..dependencies import ModelHold, ServedBy
from ..http.answers import AT_ONCE, INLINE, AnswerRoom, Many, json_answer, render
from ..http.bodies import documented, json_body
from ..http.identifiers import fresh
from ..http.json_text import to_json
from ..http.problems import error_object, request_id
from ..http.room import Reservation
from ..http.streaming import EVENT_HEADERS, Live, collect, with_pings
from ..schemas import CompletionAnswer, CompletionRequest
from ..transcripts import Collect, Prompt, Transcript

_log = logging.getLogger(__name__)
router = APIRouter(tags=["generation"])

_MOST_UNKNOWN: Final = 1000  # told of in every answer and every event
GAP_SECONDS: Final = 0.02  # least time between pieces after the first character


@router.post(
    "/v1/completions",
    response_model=CompletionAnswer,
    openapi_extra=documented(CompletionRequest),
    summary="Write text",
)
async def complete(
    request: Request,
    served: ServedBy,
    body: Annotated[CompletionRequest, json_body(CompletionRequest)],
) -> Response:
    """Continue prompts, character by character; as server-sent events with ``stream``."""
    with ExitStack() as stack:
        held = stack.enter_context(await served.hold(body.model))
        completion = _Completion.asked(body, held)
        reservation = stack.enter_context(completion.reserve(served.answers))
        asked = completion.engine_request(served.settings.request_seconds)
        stream = served.engine.submit(asked, held.network)
        if not body.stream:
            pieces = await collect(request.receive, stream)
            numbers = completion.numbers
            written = 0 if body.logprobs is None else numbers
            return await json_answer(
                lambda: completion.answer(pieces), numbers, written, reservation.handed_on()
            )
        events = with_pings(completion.events(stream, request_id(request.scope)))
        stack.callback(stream.cancel)
        end = stack.pop_all().close  # with the stream, even if it never began
        return Live(events, "text/event-stream", headers=EVENT_HEADERS, after=end)


@dataclass(frozen=True)
class _Completion:
    """One request in progress: its body, and what it needs of the model version."""

    body: CompletionRequest
    prompts: list[Prompt]
    vocabulary: Vocabulary
    fields: dict[str, Any]  # first in every answer and every chunk
    boundary: bool
    choices: int
    seed: int
    numbers: int  # that a plain answer could hold

    @classmethod
    def asked(cls, body: CompletionRequest, held: ModelHold) -> _Completion:
        choices = body.best_of if body.best_of is not None else body.n
        _check(body, choices)
        seed = secrets.randbelow(EXACT) if body.seed is None else body.seed
        prompts = prompts_of(body.prompt, held.vocabulary)
        unknown = ""
        if any((prompt.ids == UNKNOWN).any() for prompt in prompts):
            unknown = held.vocabulary.unknown_characters(_text_of(body.prompt), _MOST_UNKNOWN)
        if body.strict and unknown:
            raise InvalidInput(
                f"The prompt has characters that the model has never seen: {unknown[:40]!r}.",
                param="prompt",
                code="unknown_characters",
            )
        fields = {
            "id": f"cmpl-{fresh()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": held.version.id,
            "seed": seed,
            "unknown_characters": unknown,
        }
        boundary = held.card.corpus_format == "lines" and not body.ignore_boundary
        numbers = _numbers_at_most(body, prompts, choices)
        return cls(body, prompts, held.vocabulary, fields, boundary, choices, seed, numbers)

    def reserve(self, room: AnswerRoom) -> Reservation:
        """Memory for what the answer could hold, or for what a stream must keep.

        A stream keeps only what its reader has not read (see ``engine/stream.py``), and the
        echoed prompts of choices that wait for the first. Raises TooLarge, Overloaded.
        """
        numbers = self.numbers
        if self.body.stream:
            if self.body.logprobs is not None:
                room.check(numbers, "logprobs")
            numbers = _kept_by_a_stream(self.body, self.prompts, self.choices)
        return room.reserve(numbers, "max_tokens" if self.body.logprobs is None else "logprobs")

    def engine_request(self, timeout_seconds: float) -> engine.Request:
        """The request to the engine."""
        body = self.body
        return engine.Request(
            prompts=tuple(prompt.ids for prompt in self.prompts),
            sampling=self._sampling(),
            max_symbols=body.max_tokens,
            choices=self.choices,
            boundary=self.boundary,
            stop=self._stop_rule(),
            scored=body.echo and body.logprobs is not None,
            top=body.logprobs or 0,
            timeout_seconds=timeout_seconds,
        )

    def _sampling(self) -> Sampling:
        body = self.body
        return Sampling(
            temperature=body.temperature,
            top_k=body.top_k,
            top_p=body.top_p,
            min_p=body.min_p,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            logit_bias=tuple((int(key), bias) for key, bias in body.logit_bias.items()),
            seed=self.seed,
        )

    def _stop_rule(self) -> StopRule:
        """The stop strings as ids; one with a character outside the vocabulary never occurs."""
        vocabulary, stop = self.vocabulary, self.body.stop
        stops = [stop] if isinstance(stop, str) else stop
        known = [each for each in stops if not vocabulary.unknown_characters(each)]
        return StopRule([vocabulary.encode(each).tolist() for each in known])

    def answer(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The whole answer; of ``best_of`` choices, the ``n`` with the highest mean logprob."""
        given: list[Piece] = []
        for first in range(0, len(pieces), self.choices):
            group = list(pieces[first : first + self.choices])
            if self.choices > self.body.n:
                group.sort(key=lambda piece: -mean_logprob(piece))
            given += group[: self.body.n]
        large = self.numbers > AT_ONCE
        collect: Collect = Many if large else list
        choices = (
            {"index": index, **self._transcript(piece.index).add(piece, collect)}
            for index, piece in enumerate(given)
        )
        drawn = sum(len(piece.ids) for piece in pieces)
        usage = self._usage(drawn, {piece.index: piece.cached for piece in pieces})
        made = Many(choices, 1) if large else list(choices)
        return {**self.fields, "choices": made, "usage": usage}

    async def events(self, stream: AsyncStream, request: str) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; a failure midway is one more event."""
        transcripts = [self._transcript(i) for i in range(len(self.prompts) * self.choices)]
        with_usage = self.body.stream_options.include_usage
        more: dict[str, Any] = {"usage": None} if with_usage else {}
        cached: dict[int, int] = {}
        try:
            async with aclosing(stream.pieces(GAP_SECONDS)) as news:
                async for pieces in news:
                    cached.update((piece.index, piece.cached) for piece in pieces)
                    made = partial(self._events, pieces, transcripts, more)
                    large = sum(piece.numbers for piece in pieces) > INLINE
                    yield await render(made) if large else made()
        except Exception as error:  # noqa: BLE001 (the answer has begun: its last event says it)
            if not isinstance(error, CharloomError):
                _log.exception("request %s failed", request)
            yield _event({"error": error_object(error, request)})
            return
        if with_usage:
            usage = self._usage(sum(each.drawn for each in transcripts), cached)
            yield _event({**self.fields, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _events(
        self, pieces: Sequence[Piece], transcripts: Sequence[Transcript], more: dict[str, Any]
    ) -> bytes:
        """One event for each piece."""
        events = []
        for piece in pieces:
            choice = {"index": piece.index, **transcripts[piece.index].add(piece)}
            events.append(_event({**self.fields, "choices": [choice], **more}))
        return b"".join(events)

    def _transcript(self, index: int) -> Transcript:
        prompt = self.prompts[index // self.choices]
        return Transcript(self.vocabulary, prompt, echo=self.body.echo, logprobs=self.body.logprobs)

    def _usage(self, drawn: int, cached: dict[int, int]) -> dict[str, Any]:
        read = sum(prompt.symbols for prompt in self.prompts)
        # Choices of one prompt share its state: only what the first one had cached counts.
        spared = sum(cached.get(place * self.choices, 0) for place in range(len(self.prompts)))
        return {
            "prompt_tokens": read,
            "completion_tokens": drawn,
            "total_tokens": read + drawn,
            "prompt_tokens_details": {"cached_tokens": min(spared, read)},
        }


def prompts_of(prompt: Any, vocabulary: Vocabulary) -> list[Prompt]:
    """The prompts of a body: a string, strings, ids or lists of ids."""
    listed = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    prompts = []
    for place, each in enumerate(listed):
        if isinstance(each, str):
            prompts.append(Prompt.of_text(each, vocabulary))
            continue
        if each and max(each) >= len(vocabulary):
            raise InvalidInput(
                f"Prompt {place} has the symbol id {max(each)}; this model's ids are "
                f"0 to {len(vocabulary) - 1}.",
                param="prompt",
                code="out_of_range",
            )
        prompts.append(Prompt.of_ids(each, vocabulary))
    return prompts


def _numbers_at_most(body: CompletionRequest, prompts: Sequence[Prompt], choices: int) -> int:
    """The most numbers that an answer could hold: symbols, and alternatives of each."""
    echoed = sum(len(prompt.ids) for prompt in prompts) if body.echo else 0
    symbols = choices * (len(prompts) * body.max_tokens + echoed)
    return symbols * (1 + (body.logprobs or 0)) + choices * len(prompts) * PIECE_NUMBERS


def _kept_by_a_stream(body: CompletionRequest, prompts: Sequence[Prompt], choices: int) -> int:
    scored = body.echo and body.logprobs is not None
    echoed = sum(len(prompt.ids) for prompt in prompts) if scored else 0
    return choices * (echoed * (1 + (body.logprobs or 0)) + len(prompts) * PIECE_NUMBERS)


def mean_logprob(piece: Piece) -> float:
    """Per character; −∞ if nothing was drawn, which ranks last."""
    return float(np.mean(piece.logprobs)) if piece.logprobs else -math.inf


def _text_of(prompt: Any) -> str:
    listed = [prompt] if isinstance(prompt, str) else prompt
    return "".join(each for each in listed if isinstance(each, str))


def _check(body: CompletionRequest, choices: int) -> None:
    if choices < body.n:
        raise InvalidInput("best_of must be at least n.", param="best_of", code="out_of_range")
    if body.stream and choices > body.n:
        raise InvalidInput(
            "best_of cannot be streamed: only at the end is it known which choices are best.",
            param="best_of",
            code="unsupported",
        )


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: " + to_json(fields) + b"\n\n"
