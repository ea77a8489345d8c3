"""Every error in one JSON shape, by one table from exception class to status and type.

Takes any exception of a route, a validator or the router and gives
``{"error": {message, type, param, code, request_id}}``. Knows the error tree
and HTTP; no route formats an error itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from ...errors import (
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
from ...validation import invalid
from .json_text import to_json
from .logs import FIELDS, SAME

_log = logging.getLogger(__name__)


class Unauthenticated(CharloomError):
    """The key is missing or wrong."""

    code = "invalid_api_key"


class Forbidden(CharloomError):
    """The client may not do this."""

    code = "forbidden"


class UnsupportedMedia(InvalidInput):
    """This path does not accept bodies of this kind."""

    code = "unsupported_media_type"


class BodyTimeout(InvalidInput):
    """The client began a body and stopped sending it."""

    code = "body_timeout"


class Kind(NamedTuple):
    status: int
    type: str


#: The first class of an exception's MRO that is listed here counts.
TABLE: Final[Mapping[type[Exception], Kind]] = {
    InvalidInput: Kind(400, "invalid_request_error"),
    BodyTimeout: Kind(408, "invalid_request_error"),
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

_HIDDEN: Final = CharloomError("The server failed; its log has the reason.", code="internal_error")

#: What the router itself raises: status -> type, code, message.
_ROUTER: Final = {
    404: ("not_found_error", "path_not_found", "There is nothing at this path; see /docs."),
    405: ("invalid_request_error", "method_not_allowed", "This path does not accept this method."),
}


def request_id(scope: Scope) -> str:
    """The id under which this request is answered and logged."""
    return str(scope.get("state", {}).get("request_id", ""))


def error_object(error: Exception, request: str) -> dict[str, Any]:
    """The ``error`` object of an exception; the details of an unexpected one are left out."""
    shown = error if isinstance(error, CharloomError) else _HIDDEN
    return {
        "message": shown.message,
        "type": _kind(error).type,
        "param": shown.param,
        "code": shown.code,
        "request_id": request,
    }


def problem_response(error: Exception, scope: Scope) -> Response:
    """The answer to a request that failed with ``error``."""
    headers = {}
    if isinstance(error, Overloaded):
        headers = retry_headers(error)
        if isinstance(error, TooLate):  # OpenAI's client would retry twice, as long each time
            headers["x-should-retry"] = "false"
    elif isinstance(error, Unauthenticated):
        headers = {"www-authenticate": "Bearer"}
    return _answer(_kind(error).status, error_object(error, request_id(scope)), headers)


def retry_headers(error: Overloaded) -> dict[str, str]:
    """When to try again, in whole seconds and in milliseconds."""
    seconds = error.retry_after_seconds
    return {
        "retry-after": str(max(1, math.ceil(seconds))),
        "retry-after-ms": str(math.ceil(seconds * 1000)),
    }


def install(app: FastAPI) -> None:
    """Make ``app`` answer every failure in this shape.

    Our own mistakes go on to ``middleware.Envelope``, which logs them.
    """
    app.add_exception_handler(CharloomError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_router)
    app.add_exception_handler(ClientDisconnect, _on_gone)


async def _on_error(request: Request, error: Exception) -> Response:
    if _kind(error).status == 500:
        name = request_id(request.scope)
        extra = {FIELDS: {"request_id": name}, SAME: str(error)}
        _log.error("request %s failed: %s%s", name, error, _cause(error), extra=extra)
    return problem_response(error, request.scope)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The first part of a path says where the field is: body, query, path or header.
    return problem_response(invalid(error, within=1), request.scope)


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
    # Nobody reads this; proxies log 499 for a client that disconnected.
    return Response(status_code=499)


def _cause(error: Exception) -> str:
    """What an expected failure came from, for the log: `` (OSError: …)``; no stack trace."""
    cause = getattr(error.__cause__, "orig", error.__cause__)  # a statement may hold a text
    return "" if cause is None else f" ({type(cause).__name__}: {cause})"


def _kind(error: Exception) -> Kind:
    return next(TABLE[each] for each in type(error).__mro__ if each in TABLE)


def _answer(status: int, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    body = to_json({"error": fields})
    return Response(body, status, headers, media_type="application/json")
