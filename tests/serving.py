"""A real server in a process of its own, on loopback, stopped at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from app.settings import Settings
from tests.processes import ending

CHARLOOM = (sys.executable, "-c", "from charloom.cli import main; main()")
"""The command as it is installed: its package is not called ``app`` there."""

_START_SECONDS = 120.0  # kernels may have to be compiled first


class Served(str):
    """The server's URL; ``process`` is the server itself, ``log`` what it has written."""

    process: subprocess.Popen[str]
    log: list[str]


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give these settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHARLOOM_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            secret = getattr(value, "get_secret_value", None)
            clean[f"CHARLOOM_{name.upper()}"] = str(secret() if secret else value)
    return clean


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    """``charloom serve`` with these settings (``port=0`` for a free one), once it is ready."""
    command = [*CHARLOOM, "serve"]
    process = subprocess.Popen(
        command,
        env=environment(settings),
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),  # noqa: PTH109
    )
    log: list[str] = []
    assert process.stderr is not None
    reading = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reading.start()
    with ending(process):
        try:
            url = Served(_ready(process, log))
            url.process, url.log = process, log
            yield url
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
                reading.join(5)


def _ready(process: subprocess.Popen[str], log: list[str]) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", "".join(log))
        if found:
            try:
                if httpx.get(f"{found[0]}/readyz").status_code == 200:
                    return found[0]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError("the server did not become ready:\n" + "".join(log))
