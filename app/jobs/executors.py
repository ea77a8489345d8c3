"""Where training processes run: the port, and the one that starts them on this machine.

Takes a claim, gives a reference to what runs it: a text that any server on the
same machine understands, also one that was started later, so a runner outlives
its server and is found again. Knows nothing of states; another engine plugs in
by the same four verbs and runs the same ``app.jobs.runner``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import psutil

from app.errors import StorageFailed
from app.jobs.queue import Claim

_LAST_WORDS: Final = 8_000  # bytes kept of what a runner that crashed has written
_SAME_START: Final = 2.0  # seconds, some systems tell them roughly
_OLD: Final = 86_400.0  # seconds after which what a runner wrote is thrown away
_SWEEP_SECONDS: Final = 600.0
_REMEMBERED: Final = 1000


class Status(StrEnum):
    """What is known of a training process."""

    ALIVE = "alive"
    GONE = "gone"
    STOPPED = "stopped"  #: it is there, and stands still
    UNKNOWN = "unknown"  #: it runs elsewhere; only its lease tells


class Executor(Protocol):
    """The port: start a runner, ask after it, stop it."""

    name: str

    def start(self, claim: Claim) -> str:
        """Start ``app.jobs.runner`` for a claim; the reference. Raises StorageFailed."""

    def status(self, reference: str) -> Status: ...

    def stop(self, reference: str, *, force: bool) -> None:
        """Ask a runner to end in order, or kill it with all its children."""

    def here(self, reference: str) -> bool:
        """Whether it takes one of this executor's slots."""

    def exit_code(self, reference: str) -> int | None: ...

    def last_words(self, claim: Claim) -> str:
        """The end of what the runner wrote to its standard error."""

    def tidy(self) -> None:
        """Let go of runners that have ended."""


class LocalExecutor:
    """One process group for each job on this machine.

    ``environment`` is added to this process's own; ``folder`` takes what runners
    write to standard error.
    """

    name = "local"

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = dict(environment)
        self._folder = folder.absolute()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._exit_codes: dict[str, int] = {}
        self._gpus = _gpus()
        self._swept_at = -float("inf")
        self._lock = threading.Lock()

    def start(self, claim: Claim) -> str:
        """Start a runner; raises StorageFailed when the machine refuses."""
        command = [
            sys.executable, "-m", "app.jobs.runner",
            claim.job_id, str(claim.number), str(claim.token),
        ]  # fmt: skip
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._log(claim).open("wb") as log:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,  # a file, not a pipe: the runner may outlive us
                    start_new_session=True,
                    env={**os.environ, **self._environment, **self._gpu()},
                )
        except OSError as error:
            raise StorageFailed(
                f"No training process could be started: {error.strerror}."
            ) from error
        reference = reference_of(child.pid)
        with self._lock:
            self._children[reference] = child
        return reference

    def status(self, reference: str) -> Status:
        with self._lock:
            child = self._children.get(reference)
        if child is not None:
            code = child.poll()
            if code is not None:
                self._exit_codes[reference] = code
                return Status.GONE
            # One that ends just now is gone at the next look, when its exit code is known.
            return Status.STOPPED if _status(reference) is Status.STOPPED else Status.ALIVE
        return _status(reference) if self.here(reference) else Status.UNKNOWN

    def stop(self, reference: str, *, force: bool) -> None:
        if self.status(reference) not in (Status.ALIVE, Status.STOPPED):
            return
        group = int(reference.split("/")[1])
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL if force else signal.SIGTERM)

    def here(self, reference: str) -> bool:
        return reference.split("/")[0] == host_name()

    def exit_code(self, reference: str) -> int | None:
        return self._exit_codes.get(reference)

    def last_words(self, claim: Claim) -> str:
        try:
            with self._log(claim).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _LAST_WORDS))
                text = log.read().decode("utf-8", errors="replace")
                return text.replace("\0", "�").strip()  # PostgreSQL keeps no NUL
        except OSError:
            return ""

    def tidy(self) -> None:
        with self._lock:
            for reference, child in list(self._children.items()):
                if child.poll() is not None:
                    self._exit_codes[reference] = child.returncode
                    del self._children[reference]
            while len(self._exit_codes) > _REMEMBERED:
                del self._exit_codes[next(iter(self._exit_codes))]
        if time.monotonic() - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            for log in self._folder.glob("*.log"):
                with suppress(OSError):
                    if time.time() - log.stat().st_mtime > _OLD:
                        log.unlink()

    def _log(self, claim: Claim) -> Path:
        return self._folder / f"{claim.job_id}-{claim.number}.log"

    def _gpu(self) -> dict[str, str]:
        """The GPU that the fewest of our runners have, where there is more than one."""
        if len(self._gpus) < 2:
            return {}
        with self._lock:
            running = [child for child in self._children.values() if child.poll() is None]
        return {"CUDA_VISIBLE_DEVICES": self._gpus[len(running) % len(self._gpus)]}


def host_name() -> str:
    """This machine, as references name it."""
    return socket.gethostname().replace("/", "_")


def own_reference() -> str:
    """The reference of the calling process."""
    return reference_of(os.getpid())


def reference_of(pid: int) -> str:
    """``host/pid/start``: a process, and no later one with the same number."""
    try:
        started = _started(psutil.Process(pid))
    except psutil.Error:  # over already
        started = 0.0
    return f"{host_name()}/{pid}/{started:.2f}"


def _status(reference: str) -> Status:
    """What has become of a process of this machine."""
    _, pid, started = reference.split("/")
    try:
        process = psutil.Process(int(pid))
        if abs(_started(process) - float(started)) > _SAME_START:
            return Status.GONE
        found = process.status()
    except psutil.Error:
        return Status.GONE
    if found in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return Status.GONE
    return Status.STOPPED if found == psutil.STATUS_STOPPED else Status.ALIVE


def _started(process: psutil.Process) -> float:
    """Seconds from the machine's start: setting the clock must not make it another process."""
    return float(process.create_time() - psutil.boot_time())


@lru_cache(maxsize=1)
def _gpus() -> list[str]:
    """The GPUs that may be given out."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return given.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]
