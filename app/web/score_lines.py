"""NDJSON scored line by line, in order and in constant memory, however long the body is.

Takes a request and reads its body; gives the lines of the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial
from typing import Final

from fastapi import Request
from pydantic import ValidationError

from ..engine.sequence import Piece
from ..errors import CharloomError, InvalidInput, Overloaded, TooLarge
from ..validation import invalid
from .http.answers import AT_ONCE, check_numbers, json_pieces
from .http.bodies import without_delay
from .http.problems import error_object, request_id
from .http.strict_json import parse_json
from .schemas import MOST_CHARACTERS, LineOfScores
from .scoring import Scoring

_LINES_AT_ONCE: Final = 256
_MOST_LINE_BYTES: Final = LineOfScores.most.bytes
_BYTES_AT_ONCE: Final = 65_536


async def answers(scoring: Scoring, request: Request) -> AsyncGenerator[bytes, None]:
    """One answer per line, in order; an invalid line gets an error in its place."""
    index, name = 0, request_id(request.scope)
    async for batch in _batches(_lines(request.stream()), scoring):
        texts = [each for each in batch if isinstance(each, str)]
        found: Sequence[Piece] | CharloomError = ()
        try:
            if texts:
                found = await _patiently(scoring, texts)
        except CharloomError as error:
            found = error
        lines = partial(_answer, scoring, batch, found, index, name)
        large = scoring.work(texts) > AT_ONCE
        yield await asyncio.to_thread(lines) if large else lines()
        index += len(batch)


def _answer(
    scoring: Scoring,
    batch: Sequence[str | CharloomError],
    found: Sequence[Piece] | CharloomError,
    first: int,
    name: str,
) -> bytes:
    """The lines of one batch."""
    scored = iter(() if isinstance(found, CharloomError) else found)
    lines = []
    for index, each in enumerate(batch, first):
        wrong = each if isinstance(each, CharloomError) else found
        if isinstance(wrong, CharloomError):
            lines.append(json.dumps({"index": index, "error": error_object(wrong, name)}))
        else:
            assert isinstance(each, str)
            lines += json_pieces(scoring.item(index, each, next(scored)))
        lines.append("\n")
    return "".join(lines).encode()


async def _patiently(scoring: Scoring, texts: Sequence[str]) -> list[Piece]:
    """Score; while the server is full, retry up to the timeout instead of failing."""
    loop = asyncio.get_running_loop()
    until = loop.time() + scoring.timeout_seconds
    while True:
        try:
            return await scoring.submit(texts).collect()
        except Overloaded as error:
            if error.code != Overloaded.code or loop.time() > until:
                raise
            await asyncio.sleep(error.retry_after_seconds)


async def _lines(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes | TooLarge, None]:
    """The lines that are not blank; a line that is too long becomes an error."""
    rest, dropping = bytearray(), False
    async for piece in body:
        *whole, end = piece.split(b"\n")
        for part in whole:
            line = bytes(rest) + part
            rest.clear()
            if dropping or len(line) > _MOST_LINE_BYTES:
                yield _too_long()
            elif line.strip():
                yield line
            dropping = False
        rest += end
        if dropping or len(rest) > _MOST_LINE_BYTES:
            rest, dropping = bytearray(), True
    if dropping:
        yield _too_long()
    elif rest.strip():
        yield bytes(rest)


async def _batches(
    lines: AsyncIterator[bytes | TooLarge], scoring: Scoring
) -> AsyncGenerator[list[str | CharloomError], None]:
    batch: list[str | CharloomError] = []
    size = 0
    async for line in lines:
        length = len(line) if isinstance(line, bytes) else 0
        batch.append(await without_delay(length, partial(_text, line, scoring)))
        size += length
        if len(batch) == _LINES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
            await asyncio.sleep(0)  # lines that are all wrong wait for nobody
    if batch:
        yield batch


def _text(line: bytes | TooLarge, scoring: Scoring) -> str | CharloomError:
    """The text of a line: a JSON string or ``{"input": …}``."""
    if isinstance(line, TooLarge):
        return line
    try:
        given = parse_json(line, LineOfScores.most.values)
        text = LineOfScores.model_validate(
            {"input": given} if isinstance(given, str) else given
        ).input
        check_numbers(scoring.numbers(text), "input")
        return text
    except ValidationError as error:
        return invalid(error)
    except InvalidInput as error:
        return error


def _too_long() -> TooLarge:
    return TooLarge(
        f"A line may have at most {MOST_CHARACTERS:,} characters.", code="line_too_long"
    )
