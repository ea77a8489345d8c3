"""Run runners as processes of this machine.

A reference is ``host/pid/start``: any server on the same machine understands it, so a
runner outlives its server and is found again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...errors import StorageFailed
from ..values import Claim
from . import Status
from .command import runner_arguments, runner_command, runner_path
from .processes import RunnerProcess, running

_LAST_WORDS: Final = 8_000  # bytes kept of a crashed runner's output
_OLD: Final = 86_400.0  # seconds for which a runner's output is kept
_SWEEP_SECONDS: Final = 600.0
_REMEMBERED: Final = 1000  # exit codes kept


class LocalExecutor:
    """One process group for each runner.

    ``environment`` is added to this process's own; ``folder`` gets the runners' output;
    ``gpus`` are assigned in turn.
    """

    name = "local"

    def __init__(
        self, environment: Mapping[str, str], folder: Path, *, gpus: Sequence[str] = ()
    ) -> None:
        self._environment = {**runner_path(), **environment}
        self._folder = folder.absolute()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._exit_codes: dict[str, int] = {}
        self._gpus = gpus
        self._swept_at = -float("inf")
        self._lock = threading.Lock()

    def start(self, claim: Claim) -> str:
        """Start a runner; raises StorageFailed when the machine refuses."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._log(claim).open("wb") as log:
                child = subprocess.Popen(
                    [sys.executable, *runner_command(claim)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,  # a file, not a pipe: the runner may outlive us
                    start_new_session=True,
                    env={**os.environ, **self._environment, **self._gpu()},
                )
        except OSError as error:
            raise StorageFailed(
                f"The training process could not be started: {error.strerror}."
            ) from error
        reference = _reference(RunnerProcess.of(child.pid))
        with self._lock:
            self._children[reference] = child
        return reference

    def find(self, claim: Claim) -> str | None:
        process = running(runner_arguments(claim))
        return None if process is None else _reference(process)

    def status(self, reference: str) -> Status:
        with self._lock:
            child = self._children.get(reference)
        if child is not None:
            code = child.poll()
            if code is not None:
                self._exit_codes[reference] = code
                return Status.GONE
            # A child that is just ending is GONE at the next check, once its exit code is known.
            known = _process(reference).status()
            return Status.STOPPED if known is Status.STOPPED else Status.ALIVE
        return _process(reference).status()

    def stop(self, reference: str, *, force: bool) -> None:
        if self.status(reference) not in (Status.ALIVE, Status.STOPPED):
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(_process(reference).pid, signal.SIGKILL if force else signal.SIGTERM)

    def exit_code(self, reference: str) -> int | None:
        return self._exit_codes.get(reference)

    def last_words(self, claim: Claim) -> str:
        try:
            with self._log(claim).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _LAST_WORDS))
                text = log.read().decode("utf-8", errors="replace")
                return text.replace("\0", "�").strip()  # PostgreSQL cannot store NUL
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
        """The GPU for the next runner, in turn; nothing unless there are several."""
        if len(self._gpus) < 2:
            return {}
        with self._lock:
            running = [child for child in self._children.values() if child.poll() is None]
        return {"CUDA_VISIBLE_DEVICES": self._gpus[len(running) % len(self._gpus)]}


def _reference(process: RunnerProcess) -> str:
    return f"{process.host}/{process.pid}/{process.started:.2f}"


def _process(reference: str) -> RunnerProcess:
    host, pid, started = reference.split("/")
    return RunnerProcess(host, int(pid), float(started))
