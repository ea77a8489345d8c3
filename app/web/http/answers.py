"""JSON answers of any size: bounded, and made while other requests are served.

An answer's size is counted in numbers before anything is made: each symbol is one, and each
alternative is one more. ``AnswerRoom`` bounds one answer and all answers that are being made
or read. A small answer is made at once; a large one is made while it is sent, in a thread,
so that the client's own pace bounds what waits for it.

Knows no route.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from starlette.responses import Response

from ...engine.piece import NUMBER_BYTES
from ...errors import Overloaded, TooLarge
from .json_text import to_json
from .room import Reservation, Room
from .streaming import Live

T = TypeVar("T")

MOST_NUMBERS: Final = 2_500_000
"""Symbols and alternatives of one answer: 30 MB in memory, about 100 MB of JSON."""

AT_ONCE: Final = 20_000
"""Up to this many are made at once; more, while they are sent."""

INLINE: Final = 400
"""Up to this many logprobs are encoded on the event loop: many answers may be due at once."""

_JSON_NUMBERS: Final = 5
"""What a number of a small answer takes in all, in numbers: itself, its object, its JSON."""

# One thread: more would not make JSON faster, and would each take the interpreter from the
# event loop for 5 ms at a time.
_RENDERING: Final = ThreadPoolExecutor(1, "rendering")
_CHUNK: Final = 500
_PIECE_BYTES: Final = 64 << 10
_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Many:
    """A list of an answer that is made while it is written, ``at_once`` entries at a time.

    It stands in a dict or in another one, never in a plain list.
    """

    items: Iterable[Any]
    at_once: int = _CHUNK


class AnswerRoom:
    """Memory for the answers of a server."""

    def __init__(self, limit_bytes: int) -> None:
        self._room = Room(limit_bytes // NUMBER_BYTES)
        self._most = min(MOST_NUMBERS, self._room.limit)

    def fits(self, numbers: int) -> bool:
        """Whether one answer may hold so many numbers."""
        return numbers <= self._most

    def check(self, numbers: int, param: str) -> None:
        """Raises TooLarge if no answer may hold so many numbers."""
        if not self.fits(numbers):
            raise TooLarge(
                f"The answer could hold {numbers:,} characters and logprobs; the limit is "
                f"{self._most:,}. Ask for less in one request.",
                param=param,
                code="answer_too_large",
            )

    def reserve(self, numbers: int, param: str) -> Reservation:
        """Memory for one answer, until it is sent. Raises TooLarge, Overloaded."""
        self.check(numbers, param)
        needed = numbers * _JSON_NUMBERS if numbers <= AT_ONCE else numbers
        reservation = self._room.reserve(min(needed, self._room.limit))
        if reservation is None:
            raise Overloaded(
                "All memory for answers is in use by other requests; try again later.",
                retry_after_seconds=_RETRY_SECONDS,
            )
        return reservation


async def json_answer(
    build: Callable[[], dict[str, Any]], numbers: int, written: int, reservation: Reservation
) -> Response:
    """The answer that ``build`` returns, made from ``numbers`` numbers.

    About ``written`` of them are in its JSON. The reservation is released when it is sent.
    """
    with ExitStack() as stack:
        stack.callback(reservation.release)
        if numbers > AT_ONCE:
            pieces = in_thread(json_pieces(build()))
        else:
            encode = partial(_encoded, build)
            body = await render(encode) if written > INLINE else encode()
            if len(body) <= _PIECE_BYTES:
                return Response(body, media_type="application/json")
            pieces = _cut(body)
        return Live(pieces, "application/json", after=stack.pop_all().close)


def _encoded(build: Callable[[], dict[str, Any]]) -> bytes:
    return to_json(_whole(build()))


def _whole(value: Any) -> Any:
    """The value with a list for each ``Many``."""
    if isinstance(value, Many):
        return [_whole(each) for each in value.items]
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    return value


async def render(work: Callable[[], T]) -> T:
    """The result of work that would take the event loop too long; all of it in one thread."""
    return await asyncio.get_running_loop().run_in_executor(_RENDERING, work)


async def in_thread(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The pieces joined to some 64 KiB each, every one of them made in a thread."""

    def gathered() -> bytes:
        parts, size = [], 0
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size >= _PIECE_BYTES:
                break
        return b"".join(parts)

    while piece := await render(gathered):
        yield piece


async def _cut(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


def json_pieces(value: Any) -> Iterator[bytes]:
    """The JSON of ``value`` in small pieces: no other thread runs while the encoder does."""
    if isinstance(value, dict) and value:
        for place, (key, each) in enumerate(value.items()):
            yield (b"," if place else b"{") + to_json(key) + b":"
            yield from json_pieces(each)
        yield b"}"
    elif isinstance(value, Many):
        yield from _many(value)
    elif isinstance(value, list) and value:
        yield from _many(Many(value, 1 if len(value) <= _CHUNK else _CHUNK))
    else:
        yield to_json(value)


def _many(value: Many) -> Iterator[bytes]:
    items, start = iter(value.items), b"["
    while chunk := list(islice(items, value.at_once)):
        yield start
        if value.at_once == 1:
            yield from json_pieces(chunk[0])
        else:
            yield to_json(chunk)[1:-1]
        start = b","
    yield b"]" if start == b"," else b"[]"
