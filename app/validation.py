"""Check input with pydantic, and translate its complaints into our own errors.

Also passes our own bounds on to pydantic, and makes it stop early: input of any size costs
no more to refuse than to accept. Knows neither HTTP nor files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from typing import Any, Final, NamedTuple, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from .bounds import Bound, limit
from .errors import InvalidInput

_MOST_FIELD: Final = 200  # characters shown of a field's name
#: What pydantic calls a number beyond a range, and the argument that set that end.
_LIMITS: Final = {
    "greater_than": "gt",
    "greater_than_equal": "ge",
    "less_than": "lt",
    "less_than_equal": "le",
}
#: What a type is called, by the first word of what pydantic calls a wrong one.
_TYPES: Final = {
    "bool": "true or false",
    "dict": "an object",
    "float": "a number",
    "int": "an integer",
    "list": "an array",
    "model": "an object",
    "string": "a string",
}
_SHOULD: Final = re.compile(r"^(Input|String|List|Dictionary|Data) should ")
_CODES: Final = {
    **dict.fromkeys(_LIMITS, "out_of_range"),
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "unsupported": "unsupported",
    "finite_number": "out_of_range",
    "too_long": "out_of_range",
    "too_short": "out_of_range",
    "string_too_long": "out_of_range",
    "string_too_short": "out_of_range",
}
#: Names that pydantic adds to a path for a union's alternatives; no caller wrote them.
_BRANCHES: Final = frozenset({"bool", "int", "float", "finite-float", "str"})


class Strict(BaseModel):
    """Fields with exact types and no others; of unknown keys, only the first is reported."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = cls.model_fields
        unknown = next((key for key in fields if key not in known), None)
        if unknown is None:
            return fields
        # Each unknown key would become an error object, a hundred times the key's size.
        return {key: each for key, each in fields.items() if key in known or key == unknown}


def at_most(most: int) -> BeforeValidator:
    """Check the length of a list or object before its elements."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict):
            check_length(value, most)
        return value

    return BeforeValidator(check)


def check_length(value: Sized, most: int) -> None:
    """Raises pydantic's kind of error if a list or object has more than ``most`` entries."""
    if len(value) > most:
        raise PydanticCustomError(
            "too_long", "Input should have at most {most} entries", {"most": f"{most:,}"}
        )


class Validation(Protocol):
    """A failed validation: pydantic's ValidationError, or FastAPI's."""

    def errors(self) -> Any: ...


class Complaint(NamedTuple):
    """The first thing that is wrong: which field (``network.layers``, or ""), and how."""

    field: str
    predicate: str  # "must be …", or a sentence of its own after a colon
    code: str

    def sentence(self, name: str) -> str:
        """What is wrong with ``name``, as a sentence without a full stop."""
        return f"{name}{self.predicate}" if self.predicate[0] == ":" else f"{name} {self.predicate}"


def complaint(error: Validation, *, within: int = 0) -> Complaint:
    """The first complaint of a validation, without the first ``within`` parts of its path."""
    first: Mapping[str, Any] = error.errors()[0]
    parts = [str(part) for part in first["loc"][within:]]
    field = ".".join(part for part in parts if not _is_branch(part))[:_MOST_FIELD]
    kind = str(first["type"])
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return Complaint(field, _predicate(first), code)


def invalid(error: Validation, *, within: int = 0, whole: str = "The body") -> InvalidInput:
    """The first complaint as an error; ``whole`` is named if there is no field."""
    first = complaint(error, within=within)
    sentence = first.sentence(first.field or whole)
    return InvalidInput(f"{sentence}.", param=first.field or None, code=first.code)


def bounded(bound: Bound) -> dict[str, float]:
    """A bound as the keyword arguments of pydantic's ``Field``."""
    return {
        "gt" if bound.above_least else "ge": bound.least,
        "lt" if bound.below_most else "le": bound.most,
    }


def _predicate(complaint: Mapping[str, Any]) -> str:
    kind = str(complaint["type"])
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind in _LIMITS:
        operator = _LIMITS[kind]
        return f"must be {limit(operator, complaint['ctx'][operator])}"
    type, _, what = kind.partition("_")
    if type in _TYPES and what.startswith(("type", "parsing", "from", "attributes")):
        return f"must be {_TYPES[type]}"
    text = str(complaint["msg"]).rstrip(".").removeprefix("Value error, ")
    text = _SHOULD.sub("must ", text, count=1)
    return text if text.startswith("must ") else f": {text}"


def _is_branch(part: str) -> bool:
    return part in _BRANCHES or part.startswith(("constrained-", "function-"))
