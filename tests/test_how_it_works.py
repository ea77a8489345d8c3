"""docs/how-it-works.md speaks of code that exists, and its example is the shipped model's.

Paths are held against the tree on every page.
"""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from types import ModuleType

import pytest

from app.charlm.decoder import Decoder
from app.charlm.scoring import Score, score
from app.store.artifact import Artifact, read
from tests.test_documentation import PAGES, ROOT, each_page

PAGE = ROOT / "docs" / "how-it-works.md"
TEXT = PAGE.read_text()
PATH = re.compile(r"(?<![\w/.-])((?:app|tests|docs|benchmarks|migrations)/[\w./-]*\w)")


def modules() -> list[ModuleType]:
    """Those whose files the page names."""
    return [importlib.import_module(path.removesuffix(".py").replace("/", "."))
            for path in sorted(set(re.findall(r"`(app/[\w/]+\.py)`", TEXT)))]  # fmt: skip


def names_within(module: ModuleType) -> set[str]:
    """What a module defines, and what its classes do; ``Class.method`` as well."""
    found = set(vars(module))
    for name, value in vars(module).items():
        if isinstance(value, type):
            inside = {*dir(value), *getattr(value, "__annotations__", {})}
            found |= inside | {f"{name}.{each}" for each in inside}
    return found


@each_page
def test_every_path_named_exists(page: Path) -> None:
    assert [path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()] == []


def test_every_function_is_where_the_page_says() -> None:
    pairs = re.findall(r"`([\w.]+)`(?: and `([\w.]+)`)? in `(app/[\w/]+)\.py`", TEXT)
    assert len(pairs) >= 15
    for *names, path in pairs:
        known = names_within(importlib.import_module(path.replace("/", ".")))
        assert [name for name in names if name and name not in known] == [], path


def test_every_name_in_the_text_is_known() -> None:
    text = re.sub(r"`(?:charloom|python) [^`]*`", "", TEXT)
    named = {name for name in re.findall(r"`([\w.]+)`", text)
             if "_" in name or "." in name or name != name.lower()}  # fmt: skip
    known = set[str]().union(*map(names_within, modules()))
    assert named - known - {"logit_bias", "clip_norm"} == set()
    assert len(named) >= 12


# --- The example ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names() -> Artifact:
    return read((ROOT / "models" / "names" / "1.safetensors").read_bytes())


@pytest.fixture(scope="module")
def emma(names: Artifact) -> Score:
    decoder = Decoder.from_network(names.network(), names.card.serving_precision)
    (found,) = score(decoder, [names.vocabulary.encode("emma")], closed=True)
    return found


def test_the_table_is_what_the_shipped_model_says(emma: Score) -> None:
    rows = re.findall(r"^\| .* \| ([\d.]+) % \| ([\d.]+) \|$", TEXT, re.M)
    assert rows == [(f"{100 * math.exp(each):.1f}", f"{-each:.2f}") for each in emma.logprobs]


def test_what_follows_from_the_table(names: Artifact, emma: Score) -> None:
    assert names.calibration is not None
    for shown in (
        f"add up to {emma.nats:.2f} nats",
        f"e^−{emma.nats:.2f}, one in {round(math.exp(emma.nats), -1):,.0f}.",
        f"that is {emma.nats / 5:.2f} nats each",
        f"it is {emma.bits_per_character:.2f} bits per character",
        f"e^{emma.nats / 5:.2f} = {emma.perplexity:.2f} is the perplexity",
        f"For `emma` it is {names.calibration.percentile(emma.bits_per_character):.1f}:",
    ):
        assert shown in TEXT, shown


def test_the_pictures_are_there() -> None:
    assert PAGE in PAGES
    assert len(re.findall(r"!\[.+\]\(pictures/[\w-]+\.svg\)", TEXT)) == 2
