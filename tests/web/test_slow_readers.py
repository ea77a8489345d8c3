"""Clients that read late, slowly or never, against a real server: bounded, and nobody waits."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.charlm.network_config import NetworkConfig
from app.settings import Settings
from app.store.artifact import write
from tests.models import tiny_artifact
from tests.serving import Served, serving

# One fits into a megabyte, two do not.
NETWORK = NetworkConfig(cell="lstm", hidden_size=208, embedding_size=64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("slow")
    for seed, name in enumerate(("one", "two")):
        (folder / "models" / name).mkdir(parents=True)
        artifact = tiny_artifact(characters="abcdefghij ", config=NETWORK, seed=seed)
        (folder / "models" / name / "1.safetensors").write_bytes(write(artifact))
    settings = Settings(
        port=0,
        models_dir=str(folder / "models"),
        data_dir=folder / "data",
        model_memory_mb=1,
        max_streams=32,
        training_slots=0,
    )
    with serving(settings) as server:
        yield server


def connected(server: Served) -> socket.socket:
    """A connection whose client buffers next to nothing."""
    host, port = server.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect((host, int(port)))
    return connection


def head(path: str, kind: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def asked(server: Served, body: dict[str, Any]) -> socket.socket:
    """A connection on which a completion was asked for and nothing was read."""
    connection, content = connected(server), json.dumps(body).encode()
    connection.sendall(head("/v1/completions", "application/json", len(content)) + content)
    return connection


def whole_answer(connection: socket.socket) -> bytes:
    """The body of the answer, which is sent in chunks."""
    with connection.makefile("rb") as stream:
        while stream.readline().strip():
            pass  # the head
        body = []
        while size := int(stream.readline(), 16):
            body.append(stream.read(size))
            stream.readline()
        return b"".join(body)


def heard(connection: socket.socket, words: bytes) -> None:
    """Read until these words have come."""
    received = b""
    while words not in received:
        piece = connection.recv(1 << 16)
        assert piece, received
        received += piece


def resident_mib(server: Served) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) >> 10


def figure(server: Served, name: str) -> float:
    text = httpx.get(f"{server}/metrics").text
    return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


def test_who_sends_everything_before_reading_gets_everything(server: Served) -> None:
    """As most client libraries do. The answer is many times as large as the request."""
    lines = [json.dumps("abcdefghij" * (1 + n % 20)) for n in range(1500)]
    body = "\n".join(lines).encode()
    connection = connected(server)
    path = "/v1/score?model=one&per_character=true&top=2"
    connection.sendall(head(path, "application/x-ndjson", len(body)) + body)
    time.sleep(0.5)
    answers = [json.loads(line) for line in whole_answer(connection).splitlines()]
    connection.close()
    assert [each["index"] for each in answers] == list(range(1500))
    assert [len(each["per_character"]) for each in answers] == [
        len(json.loads(line)) + 1 for line in lines
    ]


def test_a_line_is_answered_before_the_next_is_sent(server: Served) -> None:
    connection = connected(server)
    connection.sendall(head("/v1/score?model=one", "application/x-ndjson", 1000))
    for index in range(3):
        connection.sendall(b'"abc"\n')
        heard(connection, b'"index":%d,' % index)
    connection.close()


def test_a_client_that_thinks_pins_no_model(server: Served) -> None:
    connection = connected(server)
    connection.sendall(head("/v1/score?model=one", "application/x-ndjson", 100) + b'"abc"\n')
    heard(connection, b'"index":0,')
    other = httpx.post(f"{server}/v1/score", json={"model": "two", "input": "abc"})
    assert other.status_code == 200, other.text
    connection.sendall(b'"abcd"\n')  # the first model is loaded again
    heard(connection, b'"index":1,')
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_not_read_is_bounded_and_comes_back(server: Served, stream: bool) -> None:
    body = {"model": "one", "max_tokens": 2500, "n": 8, "logprobs": 20, "ignore_boundary": True}
    httpx.post(f"{server}/v1/completions", json=body, timeout=60)
    before = resident_mib(server)
    stalled = [asked(server, {**body, "stream": stream, "seed": seed}) for seed in range(40)]
    slowest = 0.0
    for _ in range(30):
        start = time.monotonic()
        assert httpx.get(f"{server}/livez").status_code == 200
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.1)
    assert resident_mib(server) - before < 300  # it was 8.5 GB
    assert slowest < 5.0  # it was 42 s for /metrics
    for connection in stalled:
        connection.close()
    end = time.monotonic() + 30
    while figure(server, "charloom_engine_rows_running") and time.monotonic() < end:
        time.sleep(0.1)
    assert figure(server, "charloom_engine_rows_running") == 0
    assert figure(server, "charloom_engine_requests_waiting") == 0


def test_a_reader_that_comes_back_gets_the_rest(server: Served) -> None:
    body = {"model": "one", "max_tokens": 6000, "logprobs": 20, "ignore_boundary": True, "seed": 1}
    connection = asked(server, {**body, "stream": True})
    time.sleep(1.0)
    events = whole_answer(connection).decode().split("\n\n")
    connection.close()
    assert events[-2] == "data: [DONE]"
    choices = [json.loads(each.removeprefix("data: "))["choices"][0] for each in events[:-2]]
    plain = httpx.post(f"{server}/v1/completions", json=body, timeout=60).json()["choices"][0]
    assert "".join(choice["text"] for choice in choices) == plain["text"]
    together = [t for choice in choices for t in choice["logprobs"]["top_logprobs"]]
    assert together == plain["logprobs"]["top_logprobs"]
