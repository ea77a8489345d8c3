"""The work of ``charloom doctor``: check the installation and show its settings."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import torch
import typer

from ..charlm.device import pick_device
from ..charlm.kernels.amx import CONFIGURATION
from ..charlm.kernels.vectors import HAS_VNNI
from ..errors import CharloomError, StorageFailed
from ..settings import Settings
from ..wiring.environment import read_settings
from ..wiring.installation import Installation
from . import console

_SHOWN = 20
_LIBRARIES = ("charloom", "torch", "numba", "numpy", "fastapi", "sqlalchemy")


def check_installation() -> None:
    """Print machine, settings and checks; exits with 1 if a check fails."""
    settings = read_settings()
    console.out.print("Machine")
    for name, value in _machine():
        console.out.print(f"  {name:<12} {value}", markup=False)
    console.out.print("Settings")
    for field in Settings.model_fields:
        value = _without_password(str(getattr(settings, field)))
        console.out.print(f"  CHARLOOM_{field.upper():<22} {value}", markup=False)
    console.out.print("Checks")
    with Installation(settings) as installation:
        checks = (
            ("database", lambda: _database(installation)),
            ("models", lambda: _models(installation)),
            ("data folder", lambda: _room(settings)),
            ("address", lambda: _address(settings)),
        )
        passed = [_passes(name, check) for name, check in checks]  # run all, even after a failure
    if not all(passed):
        raise typer.Exit(1)


def _without_password(value: str) -> str:
    """A setting that is safe to show to others: URLs may contain a password."""
    value = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", value)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", value)


def _machine() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} at {sys.executable}"
    for name in _LIBRARIES:
        yield name, metadata.version(name)
    yield "processors", f"{read_settings().threads} in use"
    found = [name for name, there in (("VNNI", HAS_VNNI), ("AMX", len(CONFIGURATION))) if there]
    yield (
        "int8",
        f"uses {', '.join(found)}" if found else "no VNNI: slower, the same results",
    )
    yield "training on", f"{pick_device('auto')}, {torch.get_num_threads()} threads"


def _passes(name: str, check: Callable[[], str]) -> bool:
    try:
        console.out.print(f"  ok    {name:<12} {check()}", markup=False)
    except CharloomError as error:
        console.out.print(f"  WRONG {name:<12} {error.message}", markup=False)
        return False
    return True


def _database(installation: Installation) -> str:
    return installation.database.describe()


def _models(installation: Installation) -> str:
    """The models; raises StorageFailed naming the files that are wrong, after reading them all."""
    registry = installation.registry
    report = registry.synchronise()
    registry.check_store()
    wrong = dict(report.damaged)
    for version in registry.every_version():
        try:
            registry.verify(version)
        except CharloomError as error:
            wrong[version.key] = error.message
    if wrong:
        told = [f"{key}: {reason}" for key, reason in sorted(wrong.items())]
        more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        lines = "".join(f"\n        {line}" for line in [*told[:_SHOWN], *more])
        raise StorageFailed(f"{len(told)} files of {installation.settings.models_url}:{lines}")
    names = ", ".join(each.id for each in registry.list())
    return f"{installation.settings.models_url}: {names or 'none yet'}"


def _room(settings: Settings) -> str:
    folder = Path(settings.data_dir).absolute()
    if not os.access(folder, os.W_OK):
        raise StorageFailed(f"{folder} is not writable.")
    return f"{folder}: {shutil.disk_usage(folder).free / 1e9:.1f} GB free"


def _address(settings: Settings) -> str:
    if settings.exposed:
        raise StorageFailed(
            f"{settings.host} is open to a network without a key: set CHARLOOM_API_KEY."
        )
    return f"{settings.host} port {settings.port}"
