"""NDJSON scored line by line, in order and in constant memory, however long the body is.

Takes a request and reads its body; gives the lines of the answer. A model is held while lines
are being scored, not while a client thinks; every line is scored by the same version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from ..errors import CharloomError, InvalidInput, Overloaded, StorageFailed, TooLarge
from ..validation import invalid
from .dependencies import Backend
from .http.answers import INLINE, in_thread, json_pieces
from .http.bodies import without_delay
from .http.json_text import to_json
from .http.problems import error_object, request_id
from .http.spool import Spool
from .http.streaming import Arriving
from .http.strict_json import parse_json
from .schemas import MOST_CHARACTERS, LineOfScores
from .scoring import Scoring, numbers_of

_log = logging.getLogger(__name__)
_LINES_AT_ONCE: Final = 256
_LINES_A_STEP: Final = 2_000
_BYTES_AT_ONCE: Final = 65_536
_MOST_LINE_BYTES: Final = LineOfScores.most.bytes
_PIECE_BYTES: Final = 64 << 10
_PASSING: Final = (Overloaded.code, "model_memory_full")


@dataclass(frozen=True)
class LinesAsked:
    """What a client wants to know of every line, and of which model version."""

    version: str
    details: bool
    top: int


async def answers(
    served: Backend, asked: LinesAsked, request: Request
) -> AsyncGenerator[bytes, None]:
    """One answer per line, in order; an invalid line gets an error in its place.

    Reading goes on while the client does not take the answers, which wait in a spool.
    """
    spool, body = Spool(served.spools, served.datasets.scratch_folder), Arriving(request.receive)
    writing = asyncio.ensure_future(_write(served, asked, body, request_id(request.scope), spool))
    arriving = asyncio.ensure_future(_read_on(body, spool, writing))
    whole = True
    try:
        async for piece in spool.pieces():
            whole = piece.endswith(b"\n")
            yield piece
        if not arriving.done():
            await writing
    except StorageFailed as error:  # the disk gives back no more
        _log.error("an answer could not be finished: %s", error.message)
        yield _last_line(error, request_id(request.scope), whole=whole)
    finally:
        for each in (writing, arriving):
            each.cancel()
        await asyncio.gather(writing, arriving, return_exceptions=True)
        spool.close()


async def _read_on(body: Arriving, spool: Spool, writing: asyncio.Future[None]) -> None:
    """Read the body while it is scored; stop everything when the client leaves."""
    try:
        await body.read()
    except ClientDisconnect:
        spool.close()
        writing.cancel()


async def _write(
    served: Backend, asked: LinesAsked, body: Arriving, name: str, spool: Spool
) -> None:
    """Score the body into the spool; what ends it early is its last line."""
    index, last, whole = 0, b"", True
    try:
        async for batch in _batches(_lines(body.pieces()), served, asked):
            async with aclosing(_answered(served, asked, batch, index, name)) as pieces:
                async for piece in pieces:
                    await spool.put(piece)
                    whole = piece.endswith(b"\n")
            index += len(batch)
    except Exception as error:  # noqa: BLE001 (the answer has begun: its last line says it)
        if not isinstance(error, CharloomError):
            _log.exception("scoring lines failed")
        last = _last_line(error, name, whole=whole)
        async for _ in body.pieces():  # many clients read only when they have sent everything
            pass
    finally:
        spool.end(last)


async def _answered(
    served: Backend, asked: LinesAsked, batch: Sequence[str | CharloomError], first: int, name: str
) -> AsyncGenerator[bytes, None]:
    """The lines of one batch, in pieces."""
    texts = [each for each in batch if isinstance(each, str)]
    numbers = sum(numbers_of(text, asked.top) for text in texts)
    with ExitStack() as stack:
        items: Iterator[dict[str, Any]] = iter(())
        try:
            if texts:
                items = await _patiently(served, asked, texts, numbers, stack)
        except CharloomError as error:
            batch = [each if isinstance(each, CharloomError) else error for each in batch]
        lines = _rendered(batch, items, first, name)
        if (numbers if asked.details else len(batch)) > INLINE:
            async for piece in in_thread(lines):
                yield piece
        else:
            yield b"".join(lines)


def _rendered(
    batch: Sequence[str | CharloomError], items: Iterator[dict[str, Any]], first: int, name: str
) -> Iterator[bytes]:
    for index, each in enumerate(batch, first):
        if isinstance(each, CharloomError):
            yield _error_line(index, each, name)
        else:
            line, size = [], 0
            for piece in json_pieces({**next(items), "index": index}):
                line.append(piece)
                size += len(piece)
                if size >= _PIECE_BYTES:  # only lines as long as this come in pieces
                    yield b"".join(line)
                    line, size = [], 0
            yield b"".join(line)
        yield b"\n"


def _last_line(error: Exception, name: str, *, whole: bool) -> bytes:
    """The line that says why no more come; after half a line it begins with a line end."""
    line = to_json({"error": error_object(error, name)}) + b"\n"
    return line if whole else b"\n" + line


def _error_line(index: int, error: CharloomError, name: str) -> bytes:
    return to_json({"index": index, "error": error_object(error, name)})


async def _patiently(
    served: Backend, asked: LinesAsked, texts: Sequence[str], numbers: int, stack: ExitStack
) -> Iterator[dict[str, Any]]:
    """Score; while the server is full, retry up to the time limit instead of failing.

    The model is held only meanwhile. ``stack`` gets the memory that the scores take.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + served.settings.request_seconds
    while True:
        try:
            stack.enter_context(served.answers.reserve(numbers, "input"))
            with await served.hold(asked.version) as held:
                scoring = Scoring(served, held, asked.details, asked.top)
                return scoring.items(texts, await scoring.submit(texts).collect())
        except Overloaded as error:
            stack.close()
            if error.code not in _PASSING or loop.time() > until:
                raise
            await asyncio.sleep(error.retry_after_seconds)


async def _lines(body: AsyncIterator[bytes]) -> AsyncGenerator[list[bytes | TooLarge], None]:
    """The lines that end in each piece of the body and are not blank; one that is too long
    becomes an error.
    """
    rest, dropping = bytearray(), False
    async for piece in body:
        *ended, begun = piece.split(b"\n")
        lines: list[bytes | TooLarge] = []
        for number, end in enumerate(ended, 1):
            line = bytes(rest + end)
            if dropping or len(line) > _MOST_LINE_BYTES:
                lines.append(_too_long())
            elif line.strip():
                lines.append(line)
            rest.clear()
            dropping = False
            if number % _LINES_A_STEP == 0:  # there may be very many, all of them blank
                yield lines
                lines = []
                await asyncio.sleep(0)
        rest += begun  # in place: a line may come in very many pieces
        if len(rest) > _MOST_LINE_BYTES:
            rest.clear()
            dropping = True
        yield lines
    if dropping:
        yield [_too_long()]
    elif rest.strip():
        yield [bytes(rest)]


async def _batches(
    pieces: AsyncIterator[list[bytes | TooLarge]], served: Backend, asked: LinesAsked
) -> AsyncGenerator[list[str | CharloomError], None]:
    """Lines to score together: no line waits for more of the body."""
    async for lines in pieces:
        batch: list[str | CharloomError] = []
        size = numbers = 0
        for line in lines:
            length = len(line) if isinstance(line, bytes) else 0
            text = await without_delay(length, partial(_text, line, served, asked))
            needed = numbers_of(text, asked.top) if isinstance(text, str) else 0
            if batch and not served.answers.fits(numbers + needed):
                yield batch
                batch, size, numbers = [], 0, 0
            batch.append(text)
            size += length
            numbers += needed
            if len(batch) == _LINES_AT_ONCE or size >= _BYTES_AT_ONCE:
                yield batch
                batch, size, numbers = [], 0, 0
                await asyncio.sleep(0)  # lines that are all wrong wait for nobody
        if batch:
            yield batch


def _text(line: bytes | TooLarge, served: Backend, asked: LinesAsked) -> str | CharloomError:
    """The text of a line: a JSON string or ``{"input": …}``."""
    if isinstance(line, TooLarge):
        return line
    try:
        given = parse_json(line, LineOfScores.most.values)
        text = LineOfScores.model_validate(
            {"input": given} if isinstance(given, str) else given
        ).input
        served.answers.check(numbers_of(text, asked.top), "input")
        return text
    except ValidationError as error:
        return invalid(error)
    except InvalidInput as error:
        return error


def _too_long() -> TooLarge:
    return TooLarge(
        f"A line may have at most {MOST_CHARACTERS:,} characters.", code="line_too_long"
    )
