"""What reaches the parser by raw sockets: heads without end, other protocols, nonsense."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from app.web.http.connection import MOST_HEAD_BYTES
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


def said(port: int, *parts: bytes) -> bytes:
    """Everything the server says to these bytes until it hangs up or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        got = b""
        try:
            for part in parts:
                wire.sendall(part)
            wire.settimeout(1)
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
