"""docs/architecture.md is held against the code: its tree, its floors, its exceptions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TREE, FLOORS = re.findall(r"^```\n(.*?)^```", PAGE, re.M | re.S)


def drawn() -> Iterator[str]:
    """The paths of the drawn tree."""
    above: list[str] = []
    for line in TREE.splitlines():
        indent, name = re.fullmatch(r"( *)(\S+).*", line).groups()  # type: ignore[union-attr]
        above = [*above[: len(indent) // 2], name]
        yield "".join(above)


def test_everything_that_is_drawn_exists() -> None:
    paths = list(drawn())
    assert len(paths) > 25
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_folder_of_code_is_drawn() -> None:
    known = {path.rstrip("/") for path in drawn()}
    folders = {str(init.parent.relative_to(ROOT)) for init in (ROOT / "app").rglob("__init__.py")}
    assert folders - known == set()


def test_every_module_at_the_top_is_drawn() -> None:
    known = set(drawn())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "app").glob("*.py")}
    assert modules - known == {"app/__init__.py"}


def test_the_floors_are_those_that_are_checked() -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (floors,) = [c["layers"] for c in configured["contracts"] if c["type"] == "layers"]
    assert FLOORS.splitlines() == floors


def test_imports_within_functions_are_where_the_page_says() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "app").rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    (sentence,) = re.findall(r"^Every import is at the top.*$", PAGE, re.M)
    assert found == set(re.findall(r"`(app/[\w/]+\.py)`", sentence))


def test_only_subcommands_are_imported_by_their_names() -> None:
    """Such an import is seen neither by the floors nor by the test above."""
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "app").rglob("*.py")
        if re.search(r"\b(import_module|__import__)\(", path.read_text())
    }
    assert found == {"app/cli/__init__.py"}


def test_imports_within_the_package_are_relative() -> None:
    """So that it is right under both of its names."""
    absolute = [
        str(path)
        for path in (ROOT / "app").rglob("*.py")
        if re.search(r"^\s*(from|import) app\b", path.read_text(), re.M)
    ]
    assert absolute == []
