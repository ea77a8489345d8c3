"""What wraps every request: its id, security headers, counters, the check of its origin.

Plain ASGI, so that a client's disconnect reaches the routes. Knows only paths and
headers, never a body.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .identifiers import fresh
from .logs import FIELDS
from .problems import Forbidden, problem_response

_log = logging.getLogger(__name__)
_PRINTABLE: Final = re.compile(r"[ -~]{1,128}")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

Observe = Callable[[Scope, int, float], None]


class Envelope:
    """Gives each request an id, each answer its headers, and calls ``observe``.

    ``observe(scope, status, seconds)`` is called when a request is over; status 0
    means that it was never answered.
    """

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _PRINTABLE.fullmatch(given) else f"req_{fresh()}"
        scope.setdefault("state", {})["request_id"] = name
        status, start = 0, time.perf_counter()

        async def send_in_envelope(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = name
                for key, value in _HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        try:
            await self.app(scope, receive, send_in_envelope)
        except Exception as error:
            _log.error(
                "request %s failed", name, exc_info=error, extra={FIELDS: {"request_id": name}}
            )
            if status:  # the answer has begun and can only be cut off
                raise
            await problem_response(error, scope)(scope, receive, send_in_envelope)
        finally:
            self.observe(scope, status, time.perf_counter() - start)


class Gate:
    """Refuses requests that another site's page made a browser send.

    A request's Host must be a name that outsiders cannot point at this machine (DNS
    rebinding), and a request that changes something must not come from another
    origin. ``hosts`` are further names to allow; None allows all.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            await problem_response(refusal, scope)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Forbidden | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and not self._believed(host):
            return Forbidden(
                "This server does not accept that host name; CHARLOOM_ALLOWED_HOSTS can add it.",
                code="host_not_allowed",
            )
        if scope["method"] in _SAFE_METHODS:
            return None
        site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
        foreign = origin is not None and _netloc(origin) != host.lower()
        if site not in ("none", "same-origin") or foreign:
            return Forbidden("Pages of other sites may not send this request.", code="cross_site")
        return None

    def _believed(self, host: str) -> bool:
        assert self.hosts is not None
        name = _hostname(host)
        return name is not None and (name in self.hosts or _unregistrable(name))


@lru_cache(maxsize=256)
def _hostname(host: str) -> str | None:
    """The name in a Host header; None if it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _unregistrable(name: str) -> bool:
    """Whether outsiders cannot point this name here: it has no dot or is an address."""
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
