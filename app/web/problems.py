"""Every error as one JSON shape: one table from exception class to status and type.

Takes whatever a route, a validator or the router raises and gives
``{"error": {message, type, param, code, request_id}}``. Knows the error tree
and HTTP; no route writes an error by itself.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from app.errors import (
    CharloomError,
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFailed,
    TooLarge,
    TooLate,
    TrainingFailed,
)

_MOST_PARAM: Final = 200
_log = logging.getLogger(__name__)


class Unauthenticated(CharloomError):
    """The key is missing or not known."""

    code = "invalid_api_key"


class Forbidden(CharloomError):
    """Whoever asks may not do this."""

    code = "forbidden"


class UnsupportedMedia(InvalidInput):
    """The body is of a kind that this path does not read."""

    code = "unsupported_media_type"


class Kind(NamedTuple):
    status: int
    type: str


#: The nearest class in an exception's ancestry counts.
TABLE: Final[Mapping[type[Exception], Kind]] = {
    InvalidInput: Kind(400, "invalid_request_error"),
    TooLarge: Kind(413, "invalid_request_error"),
    UnsupportedMedia: Kind(415, "invalid_request_error"),
    Unauthenticated: Kind(401, "authentication_error"),
    Forbidden: Kind(403, "permission_error"),
    NotFound: Kind(404, "not_found_error"),
    Conflict: Kind(409, "conflict_error"),
    Overloaded: Kind(503, "overloaded_error"),
    StorageFailed: Kind(500, "server_error"),
    TrainingFailed: Kind(500, "server_error"),
    Exception: Kind(500, "server_error"),
}

_UNTOLD: Final = CharloomError("The server failed; its log says why.", code="internal_error")

#: What the router itself raises: status -> type, code, message.
_ROUTER: Final = {
    404: ("not_found_error", "path_not_found", "There is nothing at this path; see /docs."),
    405: ("invalid_request_error", "method_not_allowed", "This path does not take this method."),
}

_CODES: Final = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "unsupported": "unsupported",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "finite_number": "out_of_range",
    "too_long": "out_of_range",
    "too_short": "out_of_range",
    "string_too_long": "out_of_range",
    "string_too_short": "out_of_range",
}


def request_id(scope: Scope) -> str:
    """The id under which this request is answered and logged."""
    return str(scope.get("state", {}).get("request_id", ""))


def error_object(error: Exception, request: str) -> dict[str, Any]:
    """The ``error`` object of an exception; what is not ours to tell is left out."""
    told = error if isinstance(error, CharloomError) else _UNTOLD
    return {
        "message": told.message,
        "type": _kind(error).type,
        "param": told.param,
        "code": told.code,
        "request_id": request,
    }


def problem_response(error: Exception, scope: Scope) -> Response:
    """The answer to a request that failed with ``error``."""
    headers = {}
    if isinstance(error, Overloaded):
        seconds = error.retry_after_seconds
        headers = {
            "retry-after": str(max(1, math.ceil(seconds))),
            "retry-after-ms": str(math.ceil(seconds * 1000)),
        }
        if isinstance(error, TooLate):  # OpenAI's client would ask twice more, as long each time
            headers["x-should-retry"] = "false"
    elif isinstance(error, Unauthenticated):
        headers = {"www-authenticate": "Bearer"}
    return _answer(_kind(error).status, error_object(error, request_id(scope)), headers)


def invalid(error: ValidationError | RequestValidationError) -> InvalidInput:
    """The first complaint of a validation as one of our own errors."""
    first: Mapping[str, Any] = error.errors()[0]
    param = _param(first["loc"])
    kind = str(first["type"])
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return InvalidInput(_sentence(param, kind, str(first["msg"])), param=param, code=code)


def install(app: FastAPI) -> None:
    """Let ``app`` answer every failure in the one shape.

    What is our own mistake goes on to the envelope (``middleware``), which logs it.
    """
    app.add_exception_handler(CharloomError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_router)
    app.add_exception_handler(ClientDisconnect, _on_gone)


async def _on_error(request: Request, error: Exception) -> Response:
    if _kind(error).status == 500:
        _log.error("request %s failed", request_id(request.scope), exc_info=error)
    return problem_response(error, request.scope)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(invalid(error), request.scope)


async def _on_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    fallback = ("invalid_request_error", phrase.lower().replace(" ", "_"), f"{phrase}.")
    kind, code, message = _ROUTER.get(error.status_code, fallback)
    fields = {
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
        "request_id": request_id(request.scope),
    }
    return _answer(error.status_code, fields, error.headers or {})


async def _on_gone(request: Request, error: Exception) -> Response:
    # Nobody reads this; 499 is what proxies log for a client that went away.
    return Response(status_code=499)


def _kind(error: Exception) -> Kind:
    return next(TABLE[each] for each in type(error).__mro__ if each in TABLE)


def _answer(status: int, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    body = json.dumps({"error": fields}).encode()
    return Response(body, status, headers, media_type="application/json")


def _param(loc: Sequence[int | str]) -> str | None:
    """``network.layers`` or ``prompt.3`` of a validator's path, without its own remarks."""
    parts = list(loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc)
    return ".".join(map(str, parts))[:_MOST_PARAM] or None


def _sentence(param: str | None, kind: str, message: str) -> str:
    name = param or "The body"
    if kind == "missing":
        return f"{name} is required."
    if kind == "extra_forbidden":
        return f"{name} is not a field of this request."
    for start in ("Input should be ", "Value error, "):
        if message.startswith(start):
            text = message.removeprefix(start).rstrip(".")
            return f"{name} must be {text}." if start[0] == "I" else f"{name}: {text}."
    return f"{name}: {message.rstrip('.')}."
