"""Where runners run: the port that every executor implements.

``start`` returns a reference, and that reference is what is stored with the attempt,
queried and stopped, by any server.
Only the executor can read it. The runner reports its machine and process itself. Knows
nothing of job states.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from ..values import Claim


class Status(StrEnum):
    """The status of a runner."""

    ALIVE = "alive"
    GONE = "gone"
    STOPPED = "stopped"  #: it exists but is suspended
    UNKNOWN = "unknown"  #: this executor cannot tell; only the lease can


class Executor(Protocol):
    """Start a runner, find it again, query it, stop it, and report how it ended."""

    name: str
    """Stored with each attempt: only the executor that started it is asked about it."""

    def start(self, claim: Claim) -> str:
        """Start the runner of a claim; returns its reference. Raises StorageFailed when refused."""

    def find(self, claim: Claim) -> str | None:
        """The reference of a runner whose dispatcher died before it could be stored."""

    def status(self, reference: str) -> Status:
        """The status of a runner now."""

    def stop(self, reference: str, *, force: bool) -> None:
        """Ask a runner to end, or kill it with all its children."""

    def exit_code(self, reference: str) -> int | None:
        """How a runner ended, negative for a signal; None if that is not known."""

    def last_words(self, claim: Claim) -> str:
        """The end of what the runner wrote to its standard error."""

    def tidy(self) -> None:
        """Release what is held for runners that have ended."""
