"""How long completions take, alone and while a job trains on the same machine.

Part of ``python -m benchmarks.jobs``: a server with the shipped models and one
client that requests 100 characters repeatedly, first alone, then while a job
trains in its own process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

REQUESTS: Final = 300
TOKENS: Final = 100


def beside(folder: Path, database_url: str) -> str:
    """The times of completions, alone and beside a training, in one line."""
    shutil.copytree("models", folder / "served")
    with _server(folder, database_url) as client:
        name = client.get("/v1/models").json()["data"][0]["id"]
        _ask(client, name, 20)
        alone = _ask(client, name, REQUESTS)
        job = _start_training(client)
        busy = _ask(client, name, REQUESTS)
        state = client.get(f"/v1/jobs/{job}").json()["state"]
        client.post(f"/v1/jobs/{job}/cancel")
    assert state == "running", "the job ended during the measurement"
    return (
        f"{name}, {TOKENS} characters, one client, {REQUESTS} requests: p50 {_at(alone, 0.5)}, "
        f"p99 {_at(alone, 0.99)} alone; p50 {_at(busy, 0.5)}, p99 {_at(busy, 0.99)} beside a job"
    )


@contextmanager
def _server(folder: Path, database_url: str) -> Iterator[httpx.Client]:
    port = 8799
    environment = os.environ | {
        "CHARLOOM_DATA_DIR": str(folder / "data"),
        "CHARLOOM_MODELS_DIR": str(folder / "served"),
        "CHARLOOM_DATABASE_URL": database_url,
        "CHARLOOM_PORT": str(port),
        "CHARLOOM_LOG_LEVEL": "error",
    }
    serve = "from app.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", serve, "serve"], env=environment)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        while process.poll() is None:
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield client
        time.sleep(3)  # until the job is cancelled
    finally:
        client.close()
        process.terminate()
        process.wait()


def _ask(client: httpx.Client, model: str, count: int) -> list[float]:
    times = []
    for seed in range(count):
        body = {"model": model, "max_tokens": TOKENS, "seed": seed, "ignore_boundary": True}
        began = time.perf_counter()
        client.post("/v1/completions", json=body).raise_for_status()
        times.append(time.perf_counter() - began)
    return sorted(times)


def _start_training(client: httpx.Client) -> str:
    text = (Path(__file__).read_text() * 100).encode()
    kind = {"content-type": "text/plain"}
    found: dict[str, Any] = client.post(
        "/v1/datasets?name=code&format=text", content=text, headers=kind
    ).json()
    body = {"model": "beside", "dataset": found["id"], "training": {"budget_seconds": 600}}
    job: str = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    while not client.get(f"/v1/jobs/{job}").json()["progress"]:
        time.sleep(0.2)
    return job


def _at(times: list[float], share: float) -> str:
    return f"{times[int(share * (len(times) - 1))] * 1000:.1f} ms"
