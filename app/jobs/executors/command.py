"""The command that runs an attempt, the same for every executor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ... import __file__ as _init
from ... import __name__ as _package
from ..values import Claim

CANNOT_STORE: Final = 4
"""The exit code of a runner that could not write; the last line of its output says why."""
_FOLDER: Final = Path(_init).parent


def runner_arguments(claim: Claim) -> list[str]:
    """The arguments that name the runner's attempt."""
    return [claim.job_id, str(claim.number), str(claim.token)]


def runner_command(claim: Claim) -> list[str]:
    """Arguments for Python: the module and the module's arguments.

    ``-P`` keeps the current folder off the module path.
    """
    return ["-P", "-m", f"{_package}.runner", *runner_arguments(claim)]


def inherited() -> dict[str, str]:
    """The environment of this process that a runner may see: not the server's own settings.

    A runner is given those that it needs, so it never sees the key. What others read stays:
    the credentials of an object store, of PostgreSQL, the paths of libraries.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("CHARLOOM_")}


def runner_path() -> dict[str, str]:
    """The environment in which Python finds this same package.

    A clone that is not installed is found by its folder. An installed package is found by
    Python itself; it is called ``charloom``, also where an editable install keeps it in ``app/``.
    """
    return {"PYTHONPATH": str(_FOLDER.parent)} if _FOLDER.name == _package else {}
