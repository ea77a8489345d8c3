"""Request bodies: read up to a limit, as bytes or as JSON checked against a schema.

Takes a request; gives bytes, pieces of bytes, or a validated body. JSON is strict:
UTF-8, no NaN, no duplicate keys, no coercion of types. Knows no route.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ...errors import InvalidInput, TooLarge
from ...validation import invalid
from .problems import UnsupportedMedia

#: Room for a million characters, each written as two \uXXXX escapes, and other fields.
MOST_JSON_BYTES: Final = 16 << 20


class Body(BaseModel):
    """A JSON object: unknown keys are refused, ``null`` means left out, types are exact."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = cls.model_fields
        return {k: v for k, v in fields.items() if v is not None or k not in known}


B = TypeVar("B", bound=BaseModel)


async def capped(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces, as it arrives.

    Raises TooLarge as soon as it is known to exceed ``limit`` bytes, and
    UnsupportedMedia for a compressed body, whose size cannot be known in advance.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia(
            "Send the body as it is, without Content-Encoding.", code="unsupported_encoding"
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        _refuse_size(limit)
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > limit:
            _refuse_size(limit)
        if piece:
            yield piece


async def read_json(request: Request, schema: type[B], limit: int = MOST_JSON_BYTES) -> B:
    """The JSON body as a ``schema``; raises InvalidInput naming the field."""
    document = await read_document(request, limit)
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise invalid(error) from error


async def read_document(request: Request, limit: int = MOST_JSON_BYTES) -> Any:
    """The JSON body, not checked against a schema."""
    if not is_json(request):
        raise UnsupportedMedia("Send the body as JSON, with Content-Type: application/json.")
    return parse_json(b"".join([piece async for piece in capped(request, limit)]))


def is_json(request: Request) -> bool:
    """Whether the Content-Type says JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


def json_body(schema: type[B]) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads the body; ``documented`` adds it to the documentation."""

    async def read(request: Request) -> B:
        return await read_json(request, schema)

    return Depends(read)  # type: ignore[no-any-return]


def documented(schema: type[BaseModel], **others: dict[str, Any]) -> dict[str, Any]:
    """``openapi_extra`` for a route that reads ``schema``; ``others``: media type -> schema."""
    written = schema.model_json_schema()
    content = {"application/json": {"schema": _inlined(written, written.pop("$defs", {}))}}
    content |= {kind: {"schema": described} for kind, described in others.items()}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with its references replaced by the schemas they name."""
    if isinstance(part, list):
        return [_inlined(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    return {key: _inlined(value, definitions) for key, value in part.items()}


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text; raises InvalidInput saying where it is invalid."""
    try:
        value = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_once_each, parse_constant=_not_a_number
        )
        if b"\\u" in raw:  # only an escape can make half of a surrogate pair
            _check_characters(value, None)
        return value
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The body is not UTF-8: byte {error.start} is invalid.", code="invalid_json"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"The body is not JSON: {error.msg} at character {error.pos}.", code="invalid_json"
        ) from error
    except RecursionError as error:
        raise InvalidInput("The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidInput("A number in the body is too long.", code="invalid_json") from error


def _check_characters(value: Any, param: str | None) -> None:
    """Raises InvalidInput for half of a surrogate pair, which is not a character."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise InvalidInput(
                f"{param or 'The body'} has {half} at character {error.start}: half of a "
                "surrogate pair, which is not a character.",
                param=param,
                code="invalid_json",
            ) from error
    elif isinstance(value, list):
        for place, each in enumerate(value):
            _check_characters(each, f"{param}.{place}" if param else str(place))
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_characters(key, param)
            _check_characters(each, f"{param}.{key}" if param else key)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise InvalidInput(
            f"The body has {twice[:100]!r} twice.", param=twice[:100], code="duplicate_field"
        )
    return fields


def _not_a_number(constant: str) -> NoReturn:
    raise InvalidInput(f"{constant} is not a JSON number.", code="invalid_json")


def _refuse_size(limit: int) -> NoReturn:
    raise TooLarge(f"The body is larger than {limit:,} bytes.", code="body_too_large")
