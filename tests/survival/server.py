"""A server with nothing but its dispatcher, to be killed: ``python -m tests.survival.server``.

With an argument, the address of a supervisor, which then runs the jobs.
"""

from __future__ import annotations

import sys
import threading

from app.settings import Settings
from app.wiring.full import FullInstallation
from tests.jobs.executors.supervisor import SupervisedExecutor


def main() -> None:
    """Run jobs until killed; everything else comes from the environment."""
    executor = SupervisedExecutor(sys.argv[1]) if sys.argv[1:] else None
    installation = FullInstallation(Settings(), executor=executor)
    installation.registry.synchronise()
    installation.dispatcher.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
