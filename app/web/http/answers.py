"""JSON answers of any size: bounded, and built while other requests are served.

Takes a function that builds the answer; knows no route.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from ...errors import TooLarge

MOST_NUMBERS: Final = 2_500_000
"""Logprobs in one answer, alternatives included: about 100 MB of JSON."""

AT_ONCE: Final = 20_000
"""Up to this many are encoded on the event loop, in a few milliseconds; more, in a thread."""

_CHUNK: Final = 500


def check_numbers(numbers: int, param: str) -> None:
    """Raises TooLarge if an answer may not hold this many logprobs."""
    if numbers > MOST_NUMBERS:
        raise TooLarge(
            f"The answer could hold {numbers:,} logprobs; the limit is {MOST_NUMBERS:,}. Ask "
            "for fewer alternatives or less text in one request.",
            param=param,
            code="answer_too_large",
        )


async def json_answer(build: Callable[[], dict[str, Any]], numbers: int) -> Response:
    """The answer that ``build`` returns; with many ``numbers`` to work on, built in a thread."""
    if numbers <= AT_ONCE:
        return JSONResponse(build())
    body = await asyncio.to_thread(lambda: "".join(json_pieces(build())).encode())
    return Response(body, media_type="application/json")


def json_pieces(value: Any) -> Iterator[str]:
    """The JSON of ``value`` in small pieces: no other thread runs while the encoder does."""
    if isinstance(value, dict) and value:
        for place, (key, each) in enumerate(value.items()):
            yield f"{',' if place else '{'}{json.dumps(key)}:"
            yield from json_pieces(each)
        yield "}"
    elif isinstance(value, list) and 0 < len(value) <= _CHUNK:
        for place, each in enumerate(value):
            yield "," if place else "["
            yield from json_pieces(each)
        yield "]"
    elif isinstance(value, list) and value:
        for start in range(0, len(value), _CHUNK):
            yield "," if start else "["
            yield json.dumps(value[start : start + _CHUNK], allow_nan=False)[1:-1]
        yield "]"
    else:
        yield json.dumps(value, allow_nan=False)
