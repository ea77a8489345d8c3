"""Ctrl-C during a training: noted at once, acted on between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType

from . import console


class Interrupted(StrEnum):
    """What Ctrl-C does with the best weights so far."""

    ask = "ask"
    publish = "publish"
    discard = "discard"


class Interrupt:
    """Whether Ctrl-C came. A second one ends the program at once."""

    def __init__(self) -> None:
        self.came = False
        self._finishing = False

    def finish(self, *, patiently: bool) -> None:
        """Declare that only seconds of work are left.

        From now on Ctrl-C prints that, and only a second one ends the program; if
        not ``patiently``, the first one does.
        """
        self._finishing = True
        self.came = self.came or not patiently

    def note(self, number: int, frame: FrameType | None) -> None:
        """Note the signal. Raises KeyboardInterrupt the second time."""
        if self.came:
            raise KeyboardInterrupt
        self.came = True
        if self._finishing:
            console.err.print("nearly done; press Ctrl-C again to stop without publishing")


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Note Ctrl-C instead of ending the program."""
    interrupt = Interrupt()
    before = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
