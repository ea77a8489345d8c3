"""What is installed is one package with everything inside; .ci/wheel tries it for real."""

from __future__ import annotations

import tomllib
from pathlib import Path

from app.shipped import SHIPPED_MODELS, shipped

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_of_code_is_installed() -> None:
    """A folder that is missing in pyproject.toml works in a clone and nowhere else."""
    code = {
        ".".join(("charloom", *init.parent.relative_to(ROOT / "app").parts))
        for init in (ROOT / "app").rglob("__init__.py")
    }
    beside = {"charloom.migrations", "charloom.migrations.versions", "charloom.models"}
    assert set(SETUPTOOLS["packages"]) == code | beside
    assert SETUPTOOLS["packages"] == sorted(SETUPTOOLS["packages"])


def test_every_other_file_is_installed() -> None:
    patterns = SETUPTOOLS["package-data"]
    for package, folder in SETUPTOOLS["package-dir"].items():
        if folder == "models":
            continue
        wanted = {
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
        }
        found = {path for pattern in patterns[package] for path in (ROOT / folder).glob(pattern)}
        assert wanted - found == set(), package


def test_only_the_shipped_models_are_packed() -> None:
    """Whoever trains in a clone has private models beside them."""
    assert SETUPTOOLS["package-data"]["charloom.models"] == list(SHIPPED_MODELS)
    image = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in image if line.startswith("!models")] == [
        f"!models/{key}" for key in SHIPPED_MODELS
    ]
    assert all((ROOT / "models" / key).is_file() for key in SHIPPED_MODELS)


def test_what_comes_along_is_found() -> None:
    assert (shipped("migrations") / "env.py").is_file()
    assert (shipped("models") / "names" / "1.safetensors").is_file()
