"""The web server around the application: answers from its start to its end.

It listens before the application is ready, and until it leaves: whatever the application
does meanwhile, a client gets an answer (``lifecycle``).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final, NoReturn

import uvicorn

from ...errors import CharloomError, InvalidInput
from ...settings import Settings
from ...wiring.installation import Installation
from . import logs
from .connection import Connection
from .door import Door, descriptors, places
from .lifecycle import Lifecycle

_log = logging.getLogger(__name__)
_LAST_SECONDS: Final = 2.0
"""For each of: ending answers, closing the application, sending what is written."""

_LOOK_SECONDS: Final = 0.02
# The event loop gives up the interpreter at every system call and waits this long to get it
# back while the engine or a large answer is busy: with Python's 5 ms, a thousand clients
# delayed /livez by seconds.
_SWITCH_SECONDS: Final = 0.001
# libuv accepts one connection of a listener in each round of the event loop, and a round under
# load takes milliseconds: the 600th of a crowd waited for seconds, and so did /livez behind it.
_LISTENERS: Final = 32
_GC_THRESHOLDS: Final = (5_000, 10, 20)  # Python's own: 700, 10, 10


def serve(settings: Settings, application: str, *, reload: bool = False) -> None:
    """Serve what ``application`` (module:factory) makes, until SIGINT or SIGTERM ends the process.

    Raises InvalidInput if the server would be open to a network without a key, or
    if it cannot listen on the address, and what makes the application's start fail.
    """
    check_exposure(settings)
    logs.configure(settings.log_level, settings.log_format)
    most, backlog = places(descriptors())
    config = _uvicorn_config(settings, application, reload, Door(most), backlog)
    if reload:
        check_database(settings)
        uvicorn.run(**_as_arguments(config))
        return
    sys.setswitchinterval(_SWITCH_SECONDS)
    with _listen(settings, backlog) as listening:
        server = _Server(config, settings.drain_seconds)
        server.run(sockets=[listening, *(listening.dup() for _ in range(_LISTENERS - 1))])
    if server.failure is not None:
        raise server.failure


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
    """Listens while the application starts, and until everything has ended.

    At the first signal new requests are refused and those in progress may go on for
    ``drain_seconds``; then, or at a second signal, they are ended.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self.failure: CharloomError | None = None
        """Why the application could not start."""
        self._drain_seconds = drain_seconds
        self._hurried = False
        self._closing = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Only flags: this interrupts the event loop anywhere. Uvicorn would raise the signal
        # again at the end, but a server that was asked to stop and did has not failed.
        self._hurried = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._lifecycle: Lifecycle = self._application.state.lifecycle
        self._address = _shown((sockets or [])[0])
        _log.info("Charloom is starting on %s", self._address)
        self._running = asyncio.create_task(self._run_application())

    async def _run_application(self) -> None:
        """Start the application, hold it open until the end, and close it."""
        app = self._application
        try:
            await asyncio.to_thread(app.openapi)  # a tenth of a second; the application keeps it
            async with app.router.lifespan_context(app):
                _settle()
                _log.info("Charloom is serving on %s, documentation at /docs", self._address)
                await self._closing.wait()
        except CharloomError as error:
            if not self._lifecycle.draining.is_set():  # else it is what was asked for
                self.failure = error
        except Exception as error:  # noqa: BLE001 (a bug of ours)
            _log.exception("the application failed")
            self.failure = CharloomError("The server failed; its log has the reason.")
            self.failure.__cause__ = error
        finally:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        lifecycle = self._lifecycle
        lifecycle.draining.set()
        if lifecycle.busy:
            _log.info(
                "requests in progress have %g s to finish; a second signal ends them now",
                self._drain_seconds,
            )
        self._hurried = self._hurried or self._running.done()  # a second signal, or a failure
        await _until(lambda: self._hurried or self._quiet, self._drain_seconds)
        lifecycle.end()
        await _until(lambda: self._quiet, _LAST_SECONDS)
        self._closing.set()
        if not lifecycle.serving:
            self._running.cancel()  # what its thread does can be broken off
        await asyncio.wait({self._running}, timeout=_LAST_SECONDS)
        await _until(lambda: self._quiet, _LAST_SECONDS)
        # Last of all: until here, who connects or asks is told that the server stops.
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # closes it if no request is in progress
        await asyncio.sleep(_LOOK_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.failure is None:
            _log.info("Charloom has stopped")
            _leave()

    @property
    def _quiet(self) -> bool:
        """Whether no request is in progress and every answer is sent."""
        return not self._lifecycle.busy and not any(
            each.transport.get_write_buffer_size() for each in self.server_state.connections
        )

    @property
    def _application(self) -> Any:
        inner: Any = self.config.loaded_app
        while not hasattr(inner, "state"):
            inner = inner.app
        return inner


def _settle() -> None:
    """Keep the start's objects out of garbage collection, and collect less often.

    A full collection goes through every object it knows and stops all threads meanwhile: 0.2 s
    for the 300,000 of imported and compiled code, which live until the end, and 0.1 s for those
    of a thousand waiting requests. A large answer has so many small objects that Python's own
    thresholds led to one each second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for the condition, at most so long."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(_LOOK_SECONDS)


def _leave() -> NoReturn:
    """End the process at once, now that everything is closed and sent.

    Python would first wait for every thread, of which one may hang on a disk that is gone or
    compile for seconds, and then take PyTorch apart. What a thread leaves is whole: a file
    gets its name, and a transaction is committed, at the end.
    """
    logging.shutdown()
    os._exit(0)


def _shown(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(settings: Settings, backlog: int) -> socket.socket:
    """Open the listening socket before anything else, so that a port in use fails at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(backlog)
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


def _uvicorn_config(
    settings: Settings, application: str, reload: bool, door: Door, backlog: int
) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        factory=True,
        host=settings.host,
        port=settings.port,
        reload=reload,
        http=partial(Connection, door=door),  # type: ignore[arg-type]  # it is called like a class
        backlog=backlog,
        timeout_graceful_shutdown=int(settings.drain_seconds) + 1,
        lifespan="auto" if reload else "off",  # _Server starts and closes the application itself
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
