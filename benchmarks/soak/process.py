"""The server as a process: started, watched, ended by signal, its log searched.

One ``Server`` has one port and runs many processes, one after another.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

_READY_SECONDS: Final = 120.0
_END_SECONDS: Final = 45.0  # draining takes at most 25 s
_LONGEST_TRACEBACK: Final = 400  # lines
_AROUND: Final = 2.0  # seconds: a socket is closed a little before its process is gone


@dataclass
class Life:
    """One process of the server; times are on the monotonic clock."""

    pid: int
    log: Path
    started: float
    ready: float | None = None
    signalled: float | None = None
    gone: float | None = None
    exit_code: int | None = None
    killed: bool = False

    @property
    def end_seconds(self) -> float:
        """Seconds from the signal to the end; nan before it."""
        if self.gone is None or self.signalled is None:
            return float("nan")
        return self.gone - self.signalled


@dataclass
class Server:
    """Starts and ends processes with the same settings."""

    port: int
    folder: Path
    settings: dict[str, str]
    lives: list[Life] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    async def start(self) -> bool:
        """Start a process; returns whether it became ready within two minutes."""
        log = self.folder / f"server-{len(self.lives) + 1}.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CHARLOOM_")}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from app.cli import main; main()", "serve"],
                stdout=file,
                stderr=file,
                env=clean | self.settings | {"CHARLOOM_PORT": str(self.port)},
                preexec_fn=_with_normal_priority,
            )
        self.lives.append(Life(self._process.pid, log, time.monotonic()))
        return await self._ready(self.lives[-1])

    async def _ready(self, life: Life) -> bool:
        assert self._process is not None
        end = time.monotonic() + _READY_SECONDS
        async with httpx.AsyncClient(timeout=5.0) as client:
            while time.monotonic() < end and self._process.poll() is None:
                try:
                    answer = await client.get(f"http://127.0.0.1:{self.port}/readyz")
                    if answer.status_code == 200:
                        life.ready = time.monotonic()
                        return True
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)
        return False

    async def stop(self) -> None:
        """Send SIGTERM and wait; a process that does not end is killed, which is remembered."""
        process, life = self._process, self.lives[-1]
        if process is None or life.gone is not None:
            return
        life.signalled = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while process.poll() is None and time.monotonic() < life.signalled + _END_SECONDS:
            await asyncio.sleep(0.02)
        if process.poll() is None:
            life.killed = True
            process.kill()
        life.exit_code = process.wait()
        life.gone = time.monotonic()

    @property
    def current(self) -> Life:
        return self.lives[-1]

    def away(self, moment: float) -> bool:
        """Whether nobody needs to listen at this moment: between two processes."""
        return not any(
            life.ready is not None
            and life.ready <= moment
            and (life.gone is None or moment < life.gone - _AROUND)
            for life in self.lives
        )

    def ending(self, moment: float) -> bool:
        """Whether a process had its signal at this moment or is away."""
        return self.away(moment) or any(
            life.signalled is not None
            and life.signalled <= moment
            and (life.gone is None or moment <= life.gone)
            for life in self.lives
        )

    def phase(self, moment: float) -> str:
        """What the server was doing at this moment."""
        if self.away(moment):
            return "starting"
        return "ending" if self.ending(moment) else "serving"

    def tracebacks(self) -> list[str]:
        """What each kind of traceback in the logs ends with, and how many there are."""
        ends = Counter(
            end for life in self.lives for end in _tracebacks(life.log.read_text(errors="replace"))
        )
        return [f"{count} × {end}" for end, count in ends.most_common()]


def _tracebacks(log: str) -> Iterator[str]:
    """The last line of each traceback, which is indented as its first one is."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        place = line.find("Traceback (most recent call last)")
        if place >= 0:
            below = (each[place:] for each in lines[number + 1 : number + _LONGEST_TRACEBACK])
            yield next((each for each in below if each[:1].strip()), line)[:160]


def _with_normal_priority() -> None:
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
