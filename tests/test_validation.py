"""One translation of pydantic's complaints: same words and codes wherever input is checked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.validation import complaint, invalid


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
