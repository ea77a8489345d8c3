"""Request bodies: read up to a limit, as bytes or as JSON checked against a schema.

Takes a request; gives pieces of bytes, or a validated body. A large body is parsed and
checked in a thread: no step of that takes long, and requests are served between two steps.
Knows no route.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError, model_validator

from ...errors import TooLarge
from ...validation import Strict, invalid
from .problems import BodyTimeout, UnsupportedMedia
from .strict_json import Most, parse_json

BODY_SECONDS: Final = 60.0
"""For the next piece of a body."""

_AT_ONCE: Final = 64 << 10
"""Up to this many bytes are parsed on the event loop, in about a millisecond."""

#: One thread, so that not several large bodies at a time hold the interpreter's lock.
_parser: Final = ThreadPoolExecutor(1, "json")


class Body(Strict):
    """A JSON object: unknown keys are refused, ``null`` means left out, types are exact."""

    most: ClassVar[Most] = Most(64 << 10, 1_000)
    """The size of the body, if this is the whole of it."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = cls.model_fields
        return {k: v for k, v in fields.items() if v is not None or k not in known}


B = TypeVar("B", bound=Body)
T = TypeVar("T")


async def capped(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces, as it arrives.

    Raises TooLarge as soon as it is known to exceed ``limit`` bytes, UnsupportedMedia for a
    compressed body, whose size cannot be known in advance, and BodyTimeout if it stops arriving.
    """
    refuse_encoding(request)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        _refuse_size(limit)
    total = 0
    arriving = aiter(request.stream())
    while (piece := await _next_piece(arriving)) is not None:
        total += len(piece)
        if total > limit:
            _refuse_size(limit)
        if piece:
            yield piece


async def _next_piece(arriving: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await anext(arriving, None)
    except TimeoutError as error:
        raise BodyTimeout(f"Nothing of the body arrived for {BODY_SECONDS:g} s.") from error


def refuse_encoding(request: Request) -> None:
    """Raises UnsupportedMedia for a compressed body."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia(
            "Send the body as it is, without Content-Encoding.", code="unsupported_encoding"
        )


async def read_json(request: Request, schema: type[B]) -> B:
    """The JSON body as a ``schema``; raises InvalidInput naming the field."""
    return await read_document(request, schema.most, partial(_validated, schema))


async def read_document(request: Request, most: Most, check: Callable[[Any], T]) -> T:
    """What ``check`` makes of the JSON body; raises what it raises, InvalidInput, TooLarge."""
    if not is_json(request):
        raise UnsupportedMedia("Send the body as JSON, with Content-Type: application/json.")
    raw = b"".join([piece async for piece in capped(request, most.bytes)])
    return await without_delay(len(raw), lambda: check(parse_json(raw, most.values)))


async def without_delay(size: int, work: Callable[[], T]) -> T:
    """The result of ``work`` on ``size`` bytes: in a thread if there are many, in turn."""
    if size <= _AT_ONCE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_parser, work)


def _validated(schema: type[B], document: Any) -> B:
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise invalid(error) from error


def is_json(request: Request) -> bool:
    """Whether the Content-Type says JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


def json_body(schema: type[B]) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads the body; ``documented`` adds it to the documentation."""

    async def read(request: Request) -> B:
        return await read_json(request, schema)

    return Depends(read)  # type: ignore[no-any-return]


def documented(
    schema: type[BaseModel],
    others: Mapping[str, dict[str, Any]] | None = None,
    *,
    most: Most | None = None,
) -> dict[str, Any]:
    """``openapi_extra`` for a route that reads ``schema``; ``others``: media type -> schema.

    ``most`` is the size of the JSON; a Body has its own.
    """
    if most is None:
        assert issubclass(schema, Body)
        most = schema.most
    written = schema.model_json_schema()
    content = {"application/json": {"schema": _inlined(written, written.pop("$defs", {}))}}
    content |= {kind: {"schema": described} for kind, described in (others or {}).items()}
    size = f"JSON has at most {most}."
    return {"requestBody": {"required": True, "description": size, "content": content}}


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with its references replaced by the schemas they name."""
    if isinstance(part, list):
        return [_inlined(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    return {key: _inlined(value, definitions) for key, value in part.items()}


def _refuse_size(limit: int) -> NoReturn:
    raise TooLarge(f"The body is larger than {limit:,} bytes.", code="body_too_large")
