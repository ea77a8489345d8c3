"""Where runners run: the port that every executor implements.

``start`` gives a reference, and that reference is what is stored with the attempt,
asked after and stopped, by any server and whoever runs. It is the executor's own:
nothing outside looks into it. Where a runner is (its machine and process) the
runner reports by itself, as facts. Knows nothing of states.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from ..values import Claim


class Status(StrEnum):
    """What is known of a runner."""

    ALIVE = "alive"
    GONE = "gone"
    STOPPED = "stopped"  #: it is there, and stands still
    UNKNOWN = "unknown"  #: this executor cannot tell; only the lease can


class Executor(Protocol):
    """Start a runner, find it again, ask after it, stop it, and say how it ended."""

    name: str
    """Stored with each attempt: only the executor that started it is asked after it."""

    def start(self, claim: Claim) -> str:
        """Start the runner of a claim; its reference. Raises StorageFailed when refused."""

    def find(self, claim: Claim) -> str | None:
        """The reference of a runner whose dispatcher died before it could be stored."""

    def status(self, reference: str) -> Status:
        """What is known of a runner now."""

    def stop(self, reference: str, *, force: bool) -> None:
        """Ask a runner to end in order, or kill it with all its children."""

    def exit_code(self, reference: str) -> int | None:
        """How a runner ended, negative for a signal; None if that is not known."""

    def last_words(self, claim: Claim) -> str:
        """The end of what the runner wrote to its standard error."""

    def tidy(self) -> None:
        """Let go of runners that have ended."""
