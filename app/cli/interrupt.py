"""Ctrl-C while something is at stake: it is asked about between two steps, not obeyed at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from . import console


class Interrupt:
    """Whether Ctrl-C came. A second one ends the program at once."""

    def __init__(self) -> None:
        self.came = False
        self._finishing = False

    def finish(self, *, patiently: bool) -> None:
        """What is left are seconds of work that ends by itself.

        Ctrl-C then says so, and only a second one ends the program; unless
        not ``patiently``.
        """
        self._finishing = True
        self.came = self.came or not patiently

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal. Raises KeyboardInterrupt."""
        if self.came:
            raise KeyboardInterrupt
        self.came = True
        if self._finishing:
            console.err.print("nearly done; Ctrl-C again ends without publishing")


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Ctrl-C is noted instead of ending the program."""
    interrupt = Interrupt()
    before = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
