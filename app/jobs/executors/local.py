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
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...errors import StorageFailed
from ..values import Claim
from . import Status
from .command import inherited, runner_arguments, runner_command, runner_path
from .processes import RunnerProcess, running

_LAST_WORDS: Final = 8_000  # bytes kept of a crashed runner's output
_OLD: Final = 86_400.0  # seconds for which a runner's output is kept
_SWEEP_SECONDS: Final = 600.0
_REMEMBERED: Final = 1000  # exit codes kept


class LocalExecutor:
    """One process group for each runner.

    ``environment`` is added to what a runner inherits; ``folder`` gets the runners' output;
    each runner gets the one of ``gpus`` that the fewest of our runners use.
    """

    name = "local"

    def __init__(
        self, environment: Mapping[str, str], folder: Path, *, gpus: Sequence[str] = ()
    ) -> None:
        self._environment = {**runner_path(), **environment}
        self._folder = folder.absolute()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._gpu_of: dict[str, str] = {}
        self._exit_codes: dict[str, int] = {}
        self._gpus = gpus
        self._swept_at = -float("inf")
        self._lock = threading.Lock()

    def start(self, claim: Claim) -> str:
        """Start a runner; raises StorageFailed when the machine refuses."""
        gpu = self._free_gpu()
        only = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        try:
            self._folder.mkdir(exist_ok=True)  # not those around it, which may be a mount
            with self._log(claim).open("wb") as log:
                child = subprocess.Popen(
                    [sys.executable, *runner_command(claim)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,  # a file, not a pipe: the runner may outlive us
                    start_new_session=True,
                    env={**inherited(), **self._environment, **only},
                )
        except OSError as error:
            raise StorageFailed(
                f"The training process could not be started: {error.strerror}."
            ) from error
        reference = _reference(RunnerProcess.of(child.pid))
        with self._lock:
            self._children[reference] = child
            if gpu is not None:
                self._gpu_of[reference] = gpu
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
                    self._gpu_of.pop(reference, None)
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

    def _free_gpu(self) -> str | None:
        """The GPU that the fewest runners use; None unless there are several."""
        if len(self._gpus) < 2:
            return None
        with self._lock:
            used = Counter(
                gpu
                for reference, gpu in self._gpu_of.items()
                if self._children[reference].poll() is None
            )
        return min(self._gpus, key=lambda gpu: used[gpu])


def _reference(process: RunnerProcess) -> str:
    return f"{process.host}/{process.pid}/{process.started:.2f}"


def _process(reference: str) -> RunnerProcess:
    host, pid, started = reference.split("/")
    return RunnerProcess(host, int(pid), float(started))
