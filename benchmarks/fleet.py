"""Start a server on its own processor core, wait until it answers, and stop it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.vocabulary import Vocabulary
from app.store.artifact import Artifact, write
from benchmarks.client import Connection, Refused
from benchmarks.loads import CHARACTERS

SERVERS = ("charloom", "plain", "onnx_runtime", "lit")
TITLES = {
    "charloom": "Charloom",
    "plain": "FastAPI + nn.LSTM",
    "onnx_runtime": "FastAPI + ONNX Runtime",
    "lit": "LitServe, batches of 64",
    "empty": "empty FastAPI endpoint",
}


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    port: int
    pid: int


def network_file(folder: Path, layers: int, size: int) -> Path:
    """A model file with an untrained LSTM over a hundred characters; as fast as a trained one."""
    vocabulary = Vocabulary("".join(sorted(CHARACTERS)))
    torch.manual_seed(1)
    network = CharNetwork(NetworkConfig("lstm", layers, size, 64), len(vocabulary))
    artifact = Artifact.build(network, vocabulary, "text", serving_precision="int8")
    path = folder / f"lstm{layers}x{size}" / "1.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(write(artifact))
    return path


def cores() -> tuple[set[int], set[int]]:
    """The core for the servers and the core for the client."""
    known = sorted(os.sched_getaffinity(0))
    return {known[0]}, {known[-1]}


@asynccontextmanager
async def server(
    name: str, weights: Path, *, on_cores: set[int] | None = None
) -> AsyncIterator[Running]:
    """The server ``name`` over ``weights``, alone on its cores (by default the first one)."""
    port = _free_port()
    mine = on_cores or cores()[0]
    with tempfile.TemporaryDirectory() as data_dir, Path(data_dir, "log").open("w") as log:
        if name == "charloom":
            command = ["-c", "from app.cli import main; main()", "serve", "--port", str(port)]
        else:
            command = ["-m", f"benchmarks.servers.{name}", "--weights", str(weights)]
            command += ["--port", str(port)]
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "CHARLOOM_MODELS_DIR": str(weights.parent.parent),
                "CHARLOOM_DATA_DIR": data_dir,
                "CHARLOOM_DEFAULT_MODEL": weights.parent.name,
                "OMP_NUM_THREADS": str(len(mine)),
            },
            preexec_fn=lambda: os.sched_setaffinity(0, mine),
            start_new_session=True,
        )
        try:
            await _answering(port, process, Path(data_dir, "log"))
            yield Running(port, process.pid)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


async def _answering(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            async with Connection(port) as connection:
                await connection.ask({"prompt": "a", "max_tokens": 20})
                return
        except (OSError, asyncio.IncompleteReadError, Refused):  # it may answer while it starts
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the server does not answer:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
