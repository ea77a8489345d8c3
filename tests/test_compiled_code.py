"""Compiled code is kept where it can be, under a name that changes with the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import app

SHOW = "import app, os; print(os.environ.get('NUMBA_CACHE_DIR'))"


def shown(folder: Path, **environment: str) -> Path:
    """Where a copy of the package in ``folder`` keeps compiled code."""
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    printed = subprocess.check_output(
        [sys.executable, "-c", SHOW], cwd=folder, env={**kept, **environment}, text=True
    )
    return Path(printed.strip())


def test_the_folder_follows_the_sources(tmp_path: Path) -> None:
    package = tmp_path / "app"
    (package / "charlm").mkdir(parents=True)
    shutil.copy(app.__file__, package)
    (package / "charlm" / "one.py").write_text("1")
    first = shown(tmp_path, PYTHONPATH=str(tmp_path))
    assert first.parent == package / "__pycache__"
    assert first.is_dir()
    (package / "charlm" / "one.py").write_text("2")
    second = shown(tmp_path, PYTHONPATH=str(tmp_path))
    assert second.parent == first.parent
    assert second != first
    given = tmp_path / "kept"
    third = shown(tmp_path, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(given))
    assert third == given / second.name
    # A process started by this one inherits the folder, and does not nest another in it.
    assert shown(tmp_path, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(third)) == third


def test_without_the_package_folder_the_home_is_used(tmp_path: Path) -> None:
    package, home = tmp_path / "app", tmp_path / "home"
    package.mkdir()
    shutil.copy(app.__file__, package)
    (package / "__pycache__").write_text("no folder")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    assert shown(tmp_path, HOME=str(home), **environment).parent == home / ".cache" / "charloom"
