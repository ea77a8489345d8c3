"""One translation of pydantic's complaints: same words and codes wherever input is checked."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, field_validator

from app.validation import Strict, at_most, complaint, invalid


class Inner(BaseModel):
    layers: int = Field(1, ge=1, le=15)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=8)
    network: Inner = Inner()
    tags: dict[str, str | bool | int] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _not_a_dot(cls, name: str) -> str:
        if name == ".":
            raise ValueError("a dot is no name")
        return name


@pytest.mark.parametrize(
    ("document", "message", "param", "code"),
    [
        ({}, "name is required.", "name", "missing"),
        ({"name": "a", "nam": 1}, "nam is not a known field.", "nam", "unknown_field"),
        ({"name": 3}, "name must be a string.", "name", "invalid_type"),
        ({"name": "."}, "name: a dot is no name.", "name", "invalid_value"),
        (
            {"name": "a", "network": {"layers": 16}},
            "network.layers must be at most 15.",
            "network.layers",
            "out_of_range",
        ),
        ({"name": "a", "network": {"layers": "x"}}, "network.layers must be an integer.",
         "network.layers", "invalid_value"),
        ({"name": "n" * 9}, "name must have at most 8 characters.", "name", "out_of_range"),
        ({"name": "a", "tags": {"b": []}}, "tags.b must be a string.", "tags.b",
         "invalid_type"),
        ([], "The body must be an object.", None, "invalid_type"),
    ],
)  # fmt: skip
def test_the_first_complaint(document: Any, message: str, param: str | None, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(document)
    error = invalid(caught.value)
    assert (error.message, error.param, error.code) == (message, param, code)
    assert complaint(caught.value).code == code


class Lists(Strict):
    names: Annotated[list[str], FailFast(), at_most(3)] = Field(default_factory=list)
    tags: Annotated[dict[str, str], FailFast(), at_most(3)] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"names": [1] * 4}, "names must have at most 3 entries."),
        ({"names": ["a", 1, 2]}, "names.1 must be a string."),
        ({"tags": dict.fromkeys("abcd")}, "tags must have at most 3 entries."),
        ({"tags": {"a": 1, "b": 2}}, "tags.a must be a string."),
        ({str(place): place for place in range(9999)}, "0 is not a known field."),
        ({"names": [], "x": 1, "y": 2}, "x is not a known field."),
        (5, "The body must be an object."),
    ],
)
def test_the_first_error_is_the_only_one(document: Any, message: str) -> None:
    """And a length is checked before what it is the length of."""
    with pytest.raises(ValidationError) as caught:
        Lists.model_validate(document)
    assert caught.value.error_count() == 1
    assert invalid(caught.value).message == message
