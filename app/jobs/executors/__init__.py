"""Where runners run: the port that every executor implements.

``start`` returns a reference, which is stored with the attempt; any server can query or stop
the runner by it. Only the executor can read it. The runner reports its own machine and process.
Knows nothing of job states.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from ..values import Claim


class Status(StrEnum):
    """The status of a runner."""

    ALIVE = "alive"
    GONE = "gone"
    STOPPED = "stopped"  #: exists but is suspended
    UNKNOWN = "unknown"  #: this executor cannot tell; only the lease can


class Executor(Protocol):
    """Start a runner, find it again, query it, stop it, and report how it ended.

    Every verb raises StorageFailed, and nothing else, when what runs the runners does not
    answer or refuses.
    """

    name: str
    """Stored with each attempt: only the executor that started it is queried."""

    def start(self, claim: Claim) -> str:
        """Start the runner of a claim and return its reference."""

    def find(self, claim: Claim) -> str | None:
        """The reference of a runner whose dispatcher died before storing it."""

    def status(self, reference: str) -> Status:
        """The status of a runner now."""

    def stop(self, reference: str, *, force: bool) -> None:
        """Ask a runner to end, or kill it with all its children."""

    def exit_code(self, reference: str) -> int | None:
        """How a runner ended, negative for a signal; None if unknown."""

    def last_words(self, claim: Claim) -> str:
        """The end of what the runner wrote to its standard error."""

    def tidy(self) -> None:
        """Release what is held for runners that have ended."""
