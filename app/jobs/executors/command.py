"""The command that runs an attempt, the same for every executor."""

from __future__ import annotations

from pathlib import Path

from ... import __file__ as _init
from ... import __name__ as _package
from ..values import Claim

_FOLDER = Path(_init).parent


def runner_arguments(claim: Claim) -> list[str]:
    """The arguments that tell the runner its attempt."""
    return [claim.job_id, str(claim.number), str(claim.token)]


def runner_command(claim: Claim) -> list[str]:
    """Python's arguments: the module and its own. ``-P`` keeps the current folder off the
    module path.
    """
    return ["-P", "-m", f"{_package}.runner", *runner_arguments(claim)]


def runner_path() -> dict[str, str]:
    """The environment in which Python finds this same package.

    A clone that is not installed is found by its folder; an installed package
    (``charloom``, which is kept in ``app/`` where it is edited) by Python itself.
    """
    return {"PYTHONPATH": str(_FOLDER.parent)} if _FOLDER.name == _package else {}
