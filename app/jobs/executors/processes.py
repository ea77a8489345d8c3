"""Processes of this machine: identity, state and command line.

Knows no executor and no job.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

import psutil

from . import Status

_SAME_START: Final = 2.0  # seconds; some systems round start times


class RunnerProcess(NamedTuple):
    """A process, distinguished from later ones with the same number.

    ``started`` is in seconds from the machine's start, so that changing the clock does not
    make it another process.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> RunnerProcess:
        """A process of this machine; ``started`` is 0 if it has already ended."""
        try:
            started = _started(psutil.Process(pid))
        except psutil.Error:
            started = 0.0
        return cls(host_name(), pid, started)

    @classmethod
    def own(cls) -> RunnerProcess:
        """The calling process."""
        return cls.of(os.getpid())

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == host_name()

    def status(self) -> Status:
        """Its state; UNKNOWN on another machine."""
        if not self.is_here:
            return Status.UNKNOWN
        try:
            process = psutil.Process(self.pid)
            if abs(_started(process) - self.started) > _SAME_START:
                return Status.GONE
            found = process.status()
        except psutil.Error:
            return Status.GONE
        if found in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return Status.GONE
        return Status.STOPPED if found == psutil.STATUS_STOPPED else Status.ALIVE


def running(arguments: Sequence[str]) -> RunnerProcess | None:
    """A process of this machine whose command line ends with ``arguments``."""
    wanted = list(arguments)
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-len(wanted) :] == wanted:
                return RunnerProcess.of(process.pid)
        except psutil.Error:  # has ended by now, or belongs to another user
            continue
    return None


def host_name() -> str:
    """This machine's name in leases and references."""
    return socket.gethostname().replace("/", "_")


def _started(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())
