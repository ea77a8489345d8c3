"""Bounds: what they let through, how they read, and that each is written once."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel
from typer.testing import CliRunner

from app.bounds import Bound, check_bounds
from app.charlm.corpus.format import FRACTION_BOUNDS
from app.charlm.network_config import NETWORK_BOUNDS
from app.charlm.sampling import SAMPLING_BOUNDS
from app.charlm.schedule import TRAINING_BOUNDS
from app.cli import generate, train
from app.errors import InvalidInput
from app.jobs.spec import NetworkWishes, TrainingWishes
from app.web.schemas import CompletionRequest

Bounds = Mapping[str, Bound]


@pytest.mark.parametrize(
    ("bound", "within", "beyond", "read"),
    [
        (Bound(1, 15), (1, 8, 15), (0, 16, math.nan), "from 1 to 15"),
        (Bound(1, 16_384), (16_384,), (16_385,), "from 1 to 16,384"),
        (Bound(0, 1, below_most=True), (0, 0.999), (1, -0.1), "at least 0 and below 1"),
        (Bound(0.0, 0.4, above_least=True), (1e-9, 0.4), (0, 0.41), "above 0 and at most 0.4"),
        (Bound(-2.0, 2.0), (-2, 2), (-2.1, math.inf), "from -2 to 2"),
    ],
)
def test_what_is_within(
    bound: Bound, within: tuple[float, ...], beyond: tuple[float, ...], read: str
) -> None:
    assert all(map(bound.holds, within))
    assert not any(map(bound.holds, beyond))
    assert str(bound) == read


def test_the_field_is_named() -> None:
    class Asked:
        layers, dropout = 99, None

    with pytest.raises(InvalidInput, match=r"^network.layers must be at most 15\.$") as caught:
        check_bounds(Asked(), {"dropout": Bound(0, 1), "layers": Bound(1, 15)}, group="network.")
    assert (caught.value.param, caught.value.code) == ("network.layers", "out_of_range")


@pytest.mark.parametrize(
    ("schema", "bounds"),
    [
        (NetworkWishes, NETWORK_BOUNDS),
        (TrainingWishes, {**TRAINING_BOUNDS, **FRACTION_BOUNDS}),
        (CompletionRequest, SAMPLING_BOUNDS),
    ],
)
def test_specifications_and_bodies_have_the_bounds_of_what_they_become(
    schema: type[BaseModel], bounds: Bounds
) -> None:
    shared = bounds.keys() & schema.model_fields.keys()
    assert len(shared) >= 4
    for name in shared:
        described = {
            key: value
            for each in schema.model_fields[name].metadata
            for key in ("ge", "gt", "le", "lt")
            if (value := getattr(each, key, None)) is not None
        }
        bound = bounds[name]
        assert described == {
            "gt" if bound.above_least else "ge": bound.least,
            "lt" if bound.below_most else "le": bound.most,
        }, name


@pytest.mark.parametrize(
    ("command", "bounds"),
    [
        (train.app, {**NETWORK_BOUNDS, **TRAINING_BOUNDS, **FRACTION_BOUNDS}),
        (generate.app, SAMPLING_BOUNDS),
    ],
)
def test_options_have_the_bounds_of_what_they_become(command: Any, bounds: Bounds) -> None:
    """The help says the bound, and a number above it is refused in the bound's words."""
    options = typer.main.get_command(command).params
    shared = {p.name: p for p in options if p.name in bounds}
    assert len(shared) >= 4
    for name, option in shared.items():
        bound, flag = bounds[str(name)], option.opts[0]
        assert str(getattr(option, "help", "")).endswith(f"{str(bound).capitalize()}."), name
        above = str(int(bound.most) + 1)
        said = CliRunner().invoke(command, ["FILE", flag, above]).output
        assert f"Invalid value for '{flag}': must be {bound.expected(math.inf)}." in said


def test_no_number_of_a_bound_stands_in_the_places_that_read_it() -> None:
    for reader in (NetworkWishes, train):
        assert re.findall(r"\b(?:16384|16_384|8192|0\.95)\b", inspect.getsource(reader)) == []
