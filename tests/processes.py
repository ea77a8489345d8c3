"""Processes that tests start: they hear signals, and are gone when their test is over."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import AnyStr

import psutil

_HEARD = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


def hear_signals() -> None:
    """Hear the signals that whoever started us ignores, as a shell does for ``pytest &``.

    What a process ignores, its children ignore too, and would never end when a test asks them.
    """
    for each in _HEARD:
        if signal.getsignal(each) is signal.SIG_IGN:
            default = signal.default_int_handler if each is signal.SIGINT else signal.SIG_DFL
            signal.signal(each, default)


@contextmanager
def ending(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Kill the process when the block ends, also by a time limit, with all that it has started."""
    try:
        yield process
    finally:
        for each in _with_children(process.pid):
            with suppress(psutil.Error):
                each.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _with_children(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
