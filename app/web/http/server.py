"""The web server around the application: listens, and drains before it stops."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Any, Final

import uvicorn

from ...errors import InvalidInput
from ...settings import Settings
from ...wiring.installation import Installation
from ..dependencies import DRAIN_SECONDS, Backend
from . import logs
from .connection import Connection

_log = logging.getLogger(__name__)
_GRACE_SECONDS: Final = int(DRAIN_SECONDS) + 5
_CONNECTIONS: Final = 4096
# The event loop gives up the interpreter at every system call and waits this long to get it
# back while the engine or a large answer is busy: with Python's 5 ms, a thousand clients
# delayed /livez by seconds.
_SWITCH_SECONDS: Final = 0.0002


def serve(settings: Settings, application: str, *, reload: bool = False) -> None:
    """Serve what ``application`` (module:factory) makes, until SIGINT or SIGTERM.

    Raises InvalidInput if the server would be open to a network without a key, or
    if it cannot listen on the address.
    """
    check_exposure(settings)
    check_database(settings)
    logs.configure(settings.log_level, settings.log_format)
    config = _uvicorn_config(settings, application, reload)
    if reload:
        uvicorn.run(**_as_arguments(config))
        return
    listening = _listen(settings)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with listening:
        _Server(config).run(sockets=[listening])


def check_exposure(settings: Settings) -> None:
    """Raises InvalidInput if anyone on a network could use the server without a key."""
    if settings.exposed:
        raise InvalidInput(
            f"On {settings.host} anyone who can reach this machine could use the server. Set "
            "CHARLOOM_API_KEY, or CHARLOOM_TRUSTED_NETWORK=true if you trust the network.",
            param="host",
            code="exposed",
        )


def check_database(settings: Settings) -> None:
    """Migrate now, so that a faulty database gives one sentence instead of a failed start.

    Raises InvalidInput, StorageFailed, or Conflict if a newer version has migrated it.
    """
    with Installation(settings) as installation:
        installation.database.check_writing()


class _Server(uvicorn.Server):
    """Logs its address; drains from the signal on, not only after the last connection closes."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or []:
            host, port = each.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _log.info("Charloom is serving on http://%s:%d, documentation at /docs", shown, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        backend: Backend | None = getattr(self._application.state, "backend", None)
        if backend is not None:
            backend.drain()
        await super().shutdown(sockets)

    @property
    def _application(self) -> Any:
        inner: Any = self.config.loaded_app
        while not hasattr(inner, "state"):
            inner = inner.app
        return inner


def _listen(settings: Settings) -> socket.socket:
    """Open the listening socket before anything else, so that a port in use fails at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise InvalidInput(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}.",
            param="port",
            code="address_unavailable",
        ) from error
    return listening


def _uvicorn_config(settings: Settings, application: str, reload: bool) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        factory=True,
        host=settings.host,
        port=settings.port,
        reload=reload,
        http=Connection,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
    )


def _as_arguments(config: uvicorn.Config) -> dict[str, Any]:
    names = ("app", "factory", "host", "port", "reload", "http", "log_config", "access_log", "ws",
             "timeout_graceful_shutdown", "server_header", "proxy_headers")  # fmt: skip
    return {name: getattr(config, name) for name in names}
