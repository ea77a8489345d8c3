"""The server as a process: it says where it is, drains at a signal, holds its door."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.serving import CHARLOOM, environment, serving
from tests.web.conftest import put_models


def settings_in(folder: Path, **changes: object) -> Settings:
    if not (folder / "models").exists():
        put_models(folder / "models")
    return Settings(
        models_dir=str(folder / "models"), data_dir=folder / "data", port=0, default_model="prose",
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_signal_ends_streams_and_cuts_no_answer(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url:
        body = {"max_tokens": 3000, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            url.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert url.process.wait(30) == 0  # asked to stop, it has not failed


def test_a_full_server_says_when_to_come_back(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, max_streams=1, queue_limit=0)) as url:
        body = {"max_tokens": 100_000, "stream": True, "n": 128}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()  # kept: to lose it is to hang up
            next(lines)
            refused = httpx.post(f"{url}/v1/completions", json={"max_tokens": 1})
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "overloaded_error"
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) >= 1
        for _ in range(200):
            if httpx.post(f"{url}/v1/completions", json={"max_tokens": 1}).status_code == 200:
                break
            time.sleep(0.02)
        else:
            raise AssertionError("the row was never free again")


def test_a_plain_request_whose_client_left_is_dropped(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url:
        body = {"max_tokens": 100_000, "n": 20}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/completions", json=body, timeout=0.3)
        for _ in range(200):
            if "charloom_engine_rows_running 0.0" in httpx.get(f"{url}/metrics").text:
                break
            time.sleep(0.02)
        else:
            raise AssertionError("the rows were never free again")


def test_scores_come_back_while_the_body_is_still_being_sent(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url:
        host, port = url.removeprefix("http://").split(":")
        line = b'"abc"\n' * 256
        with socket.create_connection((host, int(port)), timeout=30) as wire:
            wire.sendall(
                b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
                b"content-type: application/x-ndjson\r\n\r\n"
                + f"{len(line):x}\r\n".encode() + line + b"\r\n"
            )  # fmt: skip
            got = b""
            while got.count(b'"index"') < 256:
                piece = wire.recv(65536)
                assert piece, got
                got += piece
            wire.sendall(b"0\r\n\r\n")


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url:
        try:
            answer = httpx.get(f"{url}/livez", headers={"x-big": "x" * 200_000})
            assert answer.status_code == 400
        except (httpx.ReadError, httpx.WriteError):
            pass  # the server hung up while the client was still talking
        assert httpx.get(f"{url}/livez").status_code == 200


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"CHARLOOM_HOST": "0.0.0.0"}, "CHARLOOM_API_KEY"),
        ({"CHARLOOM_PORT": "99999"}, "CHARLOOM_PORT"),
        ({"CHARLOOM_HOST": "203.0.113.7", "CHARLOOM_API_KEY": "k"}, "Cannot listen on 203.0.113.7"),
        ({"CHARLOOM_DATABASE_URL": "nonsense"}, "CHARLOOM_DATABASE_URL"),
        ({"CHARLOOM_DATA_DIR": "/dev/null/data"}, "CHARLOOM_DATA_DIR"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    variables = environment(settings_in(tmp_path)) | changes
    command = [*CHARLOOM, "serve"]
    ran = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 1
    assert says in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


def test_a_damaged_file_is_reported_and_the_rest_is_served(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    (tmp_path / "models" / "words" / "2.safetensors").write_bytes(b"nonsense")
    with serving(settings) as url:
        assert "words/2.safetensors" in "".join(url.log)
        assert httpx.get(f"{url}/v1/models/words").json()["version"] == 1
