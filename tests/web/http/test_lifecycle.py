"""From start to end, with a real server: whatever is asked and whenever, the answer is whole."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final

import httpx

from app.charlm.network_config import NetworkConfig
from app.settings import Settings
from app.store.artifact import write
from tests.jobs.making import NETWORK, TRAINING, WORDS
from tests.models import tiny_artifact
from tests.serving import Served, environment, serving
from tests.web.conftest import put_models

_SLOW: Final = NetworkConfig(cell="lstm", hidden_size=1024, embedding_size=8)
_LONG: Final = {
    "model": "slow",
    "max_tokens": 100_000,
}  # takes the only row for half a minute or more
_LINES: Final = b'"abc"\n' * 256


def settings_in(folder: Path, **changes: Any) -> Settings:
    put_models(folder / "models")
    (folder / "models" / "slow").mkdir()
    (folder / "models/slow/1.safetensors").write_bytes(
        write(tiny_artifact(config=_SLOW, format="text"))
    )
    return Settings(
        models_dir=str(folder / "models"), data_dir=folder / "data", port=0,
        default_model="words", training_slots=0, max_streams=1, **changes,
    )  # fmt: skip


class Client(socket.socket):
    """One connection that sends what it is told and reads whole answers."""

    def __init__(self, url: str) -> None:
        super().__init__()
        host, port = url.removeprefix("http://").split(":")
        self.settimeout(60)
        self.connect((host, int(port)))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        length: int | None = None,
        **headers: str,
    ) -> None:
        """Send a request; ``length`` announces a longer body, -1 one in chunks."""
        lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        framing = f"content-length: {len(body) if length is None else length}"
        lines.append("transfer-encoding: chunked" if length == -1 else framing)
        self.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        self.chunk(body) if length == -1 else self.sendall(body)

    def chunk(self, body: bytes) -> None:
        self.sendall(f"{len(body):x}\r\n".encode() + body + b"\r\n")

    def begun(self) -> HTTPResponse:
        answer = HTTPResponse(self)
        answer.begin()
        return answer

    def whole(self) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body; raises IncompleteRead if the answer was cut."""
        answer = self.begun()
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()


@contextmanager
def clients(url: str, count: int) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Client(url)) for _ in range(count)]


def post_json(client: Client, path: str, **fields: Any) -> None:
    client.ask("POST", path, json.dumps(fields).encode(), content_type="application/json")


def refused(client: Client, code: str = "draining") -> Mapping[str, str]:
    """Read an answer that must be a whole 503; returns its headers."""
    status, headers, body = client.whole()
    assert (status, json.loads(body)["error"]["code"]) == (503, code), body
    assert int(headers["retry-after"]) >= 1
    return headers


def wait_until_waiting(url: str, requests: int) -> None:
    for _ in range(1000):
        if f"charloom_engine_requests_waiting {requests}.0" in httpx.get(f"{url}/metrics").text:
            return
        time.sleep(0.02)
    raise AssertionError(f"there were never {requests} requests waiting")


def ended_cleanly(url: Served) -> None:
    assert url.process.wait(60) == 0
    for _ in range(500):  # its last words may not have been read yet
        if "has stopped" in "".join(url.log):
            break
        time.sleep(0.02)
    log = "".join(url.log)
    assert "Traceback" not in log, log
    assert " ERROR " not in log, log


def start_everything(url: str, busy: list[Client]) -> list[HTTPResponse]:
    """Begin a request of every kind that takes long; returns the answers that have begun."""
    upload, body, lines, stream, plain, rank, events = busy
    text = {"content_type": "text/plain"}
    words = httpx.post(f"{url}/v1/datasets?name=w&format=lines", content="\n".join(WORDS).encode(),
                       headers={"content-type": "text/plain"}).json()  # fmt: skip
    job = {"model": "mine", "dataset": words["id"], "network": NETWORK, "training": TRAINING}
    job = httpx.post(f"{url}/v1/jobs", json=job, timeout=60).json()
    events.ask("GET", f"/v1/jobs/{job['id']}/events", accept="text/event-stream")
    upload.ask("POST", "/v1/datasets?name=more", b"the first", length=10_000, **text)
    body.ask("POST", "/v1/completions", b"{", length=1000, content_type="application/json")
    lines.ask("POST", "/v1/score", _LINES, length=-1, content_type="application/x-ndjson")
    scored = lines.begun()
    read = b""
    while read.count(b"\n") < 256:
        read += scored.read1()
    post_json(stream, "/v1/completions", **_LONG, stream=True)
    begun = [scored, stream.begun(), events.begun()]
    post_json(plain, "/v1/completions", max_tokens=1)  # these wait for the row
    post_json(rank, "/v1/rank", candidates=["a", "b"])
    wait_until_waiting(url, 2)
    return begun


def all_ended(busy: list[Client], begun: list[HTTPResponse]) -> None:
    """Nothing is cut: a whole 503, or an error at the end of what had begun."""
    upload, body, _, _, plain, rank, _ = busy
    for client in (upload, body, plain, rank):
        assert refused(client)["connection"] == "close"
    lines, stream, events = (answer.read().decode() for answer in begun)
    assert json.loads(lines.splitlines()[-1])["error"]["code"] == "draining"
    last = stream.removesuffix("\n\n").rpartition("data: ")[2]
    assert json.loads(last)["error"]["code"] == "draining"
    name, data = events.removesuffix("\n\n").rpartition("event: ")[2].split("\ndata: ")
    assert (name, json.loads(data)["error"]["code"]) == ("error", "draining")


def test_what_takes_too_long_is_ended_and_nothing_is_cut(tmp_path: Path) -> None:
    with (
        serving(settings_in(tmp_path, drain_seconds=3.0)) as url,
        clients(url, 7) as busy,
        clients(url, 2) as idle,
    ):
        begun = start_everything(url, busy)
        for each in idle:
            each.ask("GET", "/livez")
            each.whole()
        url.process.send_signal(signal.SIGTERM)
        while httpx.get(f"{url}/readyz").status_code == 200:
            time.sleep(0.02)
        idle[0].ask("GET", "/v1/models")
        assert refused(idle[0])["connection"] == "close"
        with Client(url) as late:
            post_json(late, "/v1/completions", max_tokens=1)
            refused(late)
        ready = httpx.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "draining")
        assert int(ready.headers["retry-after"]) >= 1
        assert httpx.get(f"{url}/livez").status_code == 200
        all_ended(busy, begun)
        assert idle[1].recv(1) == b""  # it is not waited for, only closed
        ended_cleanly(url)


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    with (
        serving(settings_in(tmp_path, drain_seconds=3600.0)) as url,
        clients(url, 7) as busy,
    ):
        begun = start_everything(url, busy)
        url.process.send_signal(signal.SIGINT)
        while httpx.get(f"{url}/readyz").status_code == 200:
            time.sleep(0.02)
        url.process.send_signal(signal.SIGINT)
        all_ended(busy, begun)
        ended_cleanly(url)


def test_what_is_in_progress_is_finished_and_nobody_else_waited_for(tmp_path: Path) -> None:
    with (
        serving(settings_in(tmp_path, drain_seconds=3600.0)) as url,
        clients(url, 3) as (lines, body, idle),
    ):
        question = json.dumps({"max_tokens": 3}).encode()
        lines.ask("POST", "/v1/score", _LINES, length=-1, content_type="application/x-ndjson")
        body.ask("POST", "/v1/completions", question[:5], length=len(question),
                 content_type="application/json")  # fmt: skip
        idle.ask("GET", "/livez")
        idle.whole()
        scored = lines.begun()
        url.process.send_signal(signal.SIGTERM)
        while httpx.get(f"{url}/readyz").status_code == 200:
            time.sleep(0.02)
        lines.chunk(_LINES)
        lines.sendall(b"0\r\n\r\n")
        items = [json.loads(line) for line in scored.read().splitlines()]
        assert [each["index"] for each in items] == list(range(512))
        assert all("nats" in each for each in items)
        body.sendall(question[5:])
        status, headers, answer = body.whole()
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(answer)["choices"][0]["finish_reason"] in ("length", "stop")
        ended_cleanly(url)  # long before an hour is over


def test_a_reader_that_stalls_and_a_load_that_hangs_keep_nobody(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, drain_seconds=0.5)
    hang = (
        "from charloom.engine.resident import Resident; whole = Resident.acquire; "
        "Resident.acquire = lambda self, name: "
        "time.sleep(3600) if name == 'slow' else whole(self, name)"
    )
    with unready(settings, hang) as url, clients(url, 2) as (stalled, hung):
        while httpx.get(f"{url}/readyz").status_code != 200:
            time.sleep(0.02)
        post_json(stalled, "/v1/completions", model="prose", max_tokens=100_000, n=16, stream=True)
        post_json(hung, "/v1/completions", **_LONG)
        while "charloom_engine_rows_running 1.0" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.02)
        url.process.send_signal(signal.SIGTERM)
        assert refused(hung)["connection"] == "close"
        ended_cleanly(url)


def test_while_it_starts_it_says_so_and_can_be_stopped(tmp_path: Path) -> None:
    hang = "import charloom.web.dependencies as d; d.compile_ahead = lambda _: time.sleep(3600)"
    with unready(settings_in(tmp_path, api_key="key"), hang) as url:
        expected = "The server is starting: preparing inference."
        while (ready := httpx.get(f"{url}/readyz")).json()["message"] != expected:
            time.sleep(0.02)
        assert ready.status_code == 503
        assert (ready.json()["missing"], ready.json()["code"]) == (["startup"], "starting")
        assert int(ready.headers["retry-after"]) >= 1
        assert httpx.get(f"{url}/livez").status_code == 200
        with clients(url, 2) as (known, unknown):
            for path in ("/v1/models", "/v1/completions", "/metrics", "/nothing"):
                known.ask("GET", path, authorization="Bearer key")
                refused(known, "starting")
            unknown.ask("GET", "/v1/models")
            assert unknown.whole()[0] == 401
        url.process.send_signal(signal.SIGTERM)
        ended_cleanly(url)  # though a thread works for an hour


@contextmanager
def unready(settings: Settings, patch: str) -> Iterator[Served]:
    """A server that has begun to start, in a process where ``patch`` was done first."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import time; {patch}; from charloom.cli import main; main()",
         "serve"],
        env=environment(settings), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    log: list[str] = []
    reading = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    try:
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            raise AssertionError("".join(log))
        reading.start()
        url = Served(found[0])
        url.process, url.log = process, log
        yield url
    finally:
        process.kill()
        process.wait()
        if reading.is_alive():
            reading.join(5)
        process.stderr.close()
