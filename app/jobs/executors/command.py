"""The command that runs an attempt, the same for every executor."""

from __future__ import annotations

from pathlib import Path

from ... import __file__ as _init
from ... import __name__ as _package
from ..values import Claim

_FOLDER = Path(_init).parent


def runner_arguments(claim: Claim) -> list[str]:
    """What tells the runner which attempt it is."""
    return [claim.job_id, str(claim.number), str(claim.token)]


def runner_command(claim: Claim) -> list[str]:
    """What is given to Python: the module and its arguments.

    ``-P``: a folder that happens to be the current one is not searched for modules.
    """
    return ["-P", "-m", f"{_package}.runner", *runner_arguments(claim)]


def runner_path() -> dict[str, str]:
    """The environment in which Python finds this package as it was found here.

    A clone that is not installed is found by its folder; an installed package
    (``charloom``, which is kept in ``app/`` where it is edited) by Python itself.
    """
    return {"PYTHONPATH": str(_FOLDER.parent)} if _FOLDER.name == _package else {}
