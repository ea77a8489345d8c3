"""Default deny: with a key set, every path but a short public list requires it.

There is one key, from the settings. Without it, anyone who reaches the server may use it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..http.problems import Unauthenticated, problem_response

#: Answered without a key: health checks for load balancers, and the documentation, which says
#: nothing about this installation and has a field for the key.
PUBLIC: Final = frozenset(
    {
        "/livez",
        "/readyz",
        "/docs",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "/docs/favicon.png",
        "/docs/start.js",
        "/openapi.json",
    }
)

SCHEME: Final = {"key": {"type": "http", "scheme": "bearer"}}
"""The key as OpenAPI describes it."""


class KeyRequired:
    """Passes on requests that carry ``key`` (``Authorization: Bearer …``).

    ``key`` is ASCII, without spaces around it (``settings.checked_key``).
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self._digest = _digest(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PUBLIC and not self._known(scope):
            error = Unauthenticated(
                "This server requires a key: send the header Authorization: Bearer KEY."
            )
            await problem_response(error, scope)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = given.strip()
        return given != "" and hmac.compare_digest(_digest(given), self._digest)


def _digest(key: str) -> bytes:
    # Digests have the same length whatever was sent, so comparing them reveals nothing.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
