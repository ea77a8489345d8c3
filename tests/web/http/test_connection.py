"""What reaches the parser by raw sockets: heads without end, other protocols, nonsense."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.settings import Settings
from app.web.http.connection import MOST_HEAD_BYTES, Connection
from app.web.http.door import Door
from app.web.http.lifecycle import Lifecycle, Served
from tests.serving import serving
from tests.web.conftest import put_models


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("wire")
    settings = Settings(
        models_dir=str(put_models(folder / "models")), data_dir=folder / "data", port=0,
        default_model="words", training_slots=0,
    )  # fmt: skip
    with serving(settings) as url:
        yield int(url.rpartition(":")[2])


def said(port: int, *parts: bytes, wait: float = 1) -> bytes:
    """Everything the server says to these bytes until it hangs up or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        got = b""
        try:
            for part in parts:
                wire.sendall(part)
            wire.settimeout(wait)
            while piece := wire.recv(65536):
                got += piece
        except (TimeoutError, ConnectionError):
            pass
        return got


def refusal(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer
    assert b"connection: close" in head
    error: dict[str, object] = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "invalid_http"
    assert str(error["request_id"]).encode() in head
    return error


GET = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"


def test_a_head_of_the_largest_size_is_read(port: int) -> None:
    name = b"x-big: "
    room = MOST_HEAD_BYTES - len(GET) - len(name) - 100
    assert said(port, GET + name + b"x" * room + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "parts",
    [
        (GET + b"x-big: " + b"x" * MOST_HEAD_BYTES + b"\r\n\r\n",),
        (GET, *[b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in range(70)], b"\r\n"),
        (GET + b"x-endless: ", *[b"z" * 10_000] * 7),
        (b"GET /" + b"a" * MOST_HEAD_BYTES,),
    ],
    ids=["one header", "many headers", "a header without end", "a target without end"],
)
def test_a_larger_head_is_refused(port: int, parts: tuple[bytes, ...]) -> None:
    answer = said(port, *parts)
    if answer:  # the server may hang up while the client is still talking
        assert "headers are larger" in str(refusal(answer)["message"])
    assert said(port, GET + b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_what_stands_between_the_pieces_of_a_body_is_capped(port: int) -> None:
    """Trailers and chunk extensions are gathered by nobody."""
    head = b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
    head += b"content-type: application/json\r\n\r\n"
    large = b"e" * (64 * MOST_HEAD_BYTES)  # more than one read of the server
    for rest in (b"2;" + large, b"2\r\n{}\r\n0\r\nx: " + large):
        answer = said(port, head, rest)
        assert not answer or refusal(answer)


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"GET  HTTP/9.9\r\n\r\n",
     b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
     b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"],
)  # fmt: skip
def test_what_is_not_http_is_told_so(port: int, nonsense: bytes) -> None:
    assert "not HTTP" in str(refusal(said(port, nonsense))["message"])


def test_a_wish_for_another_protocol_is_ignored(port: int) -> None:
    """curl --http2 and Java's client ask for h2c in their first request."""
    wish = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n"
    assert said(port, GET + wish + b"\r\n", GET + b"\r\n").count(b"HTTP/1.1 200 ") == 2
    body = b'{"input": "abc"}'
    post = b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    post += b"content-length: %d\r\n" % len(body)
    answer = said(port, post + wish + b"\r\n" + body + GET + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b'"object":"score"' in answer


def test_requests_in_a_row_are_answered_in_order(port: int) -> None:
    other = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = said(port, (GET + b"\r\n") + other + (GET + b"\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]


def test_other_versions_of_http_are_refused(port: int) -> None:
    for head in (
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/3.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        refusal(said(port, head))
    old = said(port, b"GET /livez HTTP/1.0\r\nhost: localhost\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in old


def test_a_client_that_sends_everything_first_reads_why_it_was_refused(port: int) -> None:
    """Python's urllib gave up with a broken pipe and never read the answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/jobs",
        data=b'{"model": "' + b"x" * 24_000_000 + b'"}',
        headers={"content-type": "application/json"},
    )
    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        with refused.value as answer:
            assert answer.code == 413
            assert json.load(answer)["error"]["code"] == "body_too_large"


def test_a_refused_body_that_never_comes_keeps_no_connection_open(port: int) -> None:
    head = (
        b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 999999999999\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=2) as wire:
        wire.sendall(head)
        got = b""
        while piece := wire.recv(65536):  # the end comes at once, not with the keep-alive's
            got += piece
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in got


@contextmanager
def small_server(door: Door, head_seconds: float) -> Iterator[int]:
    """A server in this process with other limits; it answers everything after a moment."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await receive()
        if scope["path"] == "/begun":
            headers = [(b"content-length", b"4")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await asyncio.sleep(1.0)
            await send({"type": "http.response.body", "body": b"done"})
            return
        await asyncio.sleep(0 if scope["path"] == "/livez" else 2.0)
        await Response("done")(scope, receive, send)

    lifecycle = Lifecycle()
    lifecycle.serving = True
    config = uvicorn.Config(
        Served(answer, lifecycle), port=0, lifespan="off", ws="none", log_config=None,
        http=partial(Connection, door=door, head_seconds=head_seconds),  # type: ignore[arg-type]
    )  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        running.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            running.join()


@contextmanager
def connected(door: Door, head_seconds: float) -> Iterator[socket.socket]:
    """A connection to such a server."""
    with (
        small_server(door, head_seconds) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as wire,
    ):
        yield wire


def closed(wire: socket.socket) -> bytes:
    """What came before the server closed the connection, within two seconds."""
    wire.settimeout(2)
    got = b""
    try:
        while piece := wire.recv(65536):
            got += piece
    except ConnectionError:
        pass
    return got


def test_a_head_has_a_deadline_from_its_first_moment() -> None:
    with small_server(Door(), 0.4) as port, ExitStack() as stack:
        silent, begun, second = (
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)
        )
        begun.sendall(b"GET /livez HTTP/1.1\r\nx-slow: ")
        second.sendall(GET + b"\r\n")
        second.settimeout(2)
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
        second.sendall(b"G")
        assert closed(silent) == b""
        for wire in (begun, second):
            answer = closed(wire)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"head_timeout" in answer


def test_a_request_may_take_longer_than_a_head() -> None:
    with small_server(Door(), 0.2) as port:
        answer = said(port, GET.replace(b"/livez", b"/slow") + b"connection: close\r\n\r\n", wait=5)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_silent_connections_close_the_door_to_nobody() -> None:
    with small_server(Door(most=8), 60) as port, ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        for _ in range(3):
            assert said(port, GET + b"connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_when_all_are_busy_health_is_answered_and_others_are_told() -> None:
    with small_server(Door(most=4), 60) as port, ExitStack() as stack:
        slow = GET.replace(b"/livez", b"/slow") + b"\r\n"
        busy = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            for _ in range(4)
        ]
        for wire in busy:
            wire.sendall(slow)
        time.sleep(0.1)
        assert said(port, GET + b"\r\n").startswith(b"HTTP/1.1 200 ")
        told = said(port, slow)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in told
        assert b"retry-after: " in told
        for wire in busy:
            assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_requests_in_a_row_are_all_answered_whatever_arrives_when() -> None:
    """The second one's body comes after the first one's answer."""
    with connected(Door(), 60) as wire:
        head = b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n"
        wire.sendall(GET + b"\r\n" + head + b"connection: close\r\n\r\n")
        got = wire.recv(65536)
        wire.sendall(b"body")
        got += closed(wire)
    assert got.count(b"HTTP/1.1 200 ") == 2


def test_nonsense_after_a_request_does_not_tear_its_answer() -> None:
    with connected(Door(), 60) as wire:
        wire.sendall(GET.replace(b"/livez", b"/begun") + b"\r\n")
        got = wire.recv(65536)
        wire.sendall(b"\x00 nonsense \r\n\r\n")
        wire.settimeout(5)
        while piece := wire.recv(65536):
            got += piece
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"done")
    assert got.count(b"HTTP/1.1") == 1


def test_a_line_end_keeps_no_connection_open() -> None:
    with connected(Door(), 0.3) as wire:
        wire.sendall(GET + b"\r\n")
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")
        wire.sendall(b"\r\n")
        assert closed(wire) == b""


def test_an_upgrade_whose_body_has_no_end_is_refused(port: int) -> None:
    refusal(said(port, b"POST /livez HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
                 b"upgrade: h2c\r\ntransfer-encoding: gzip\r\n\r\nrest"))  # fmt: skip
