"""One shape for every list (a page of rows, and whether there are more) and every deletion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel

from ..bounds import Bound
from ..errors import InvalidInput

T = TypeVar("T")

PAGE_BOUND: Final = Bound(1, 100)
"""How many rows a page may have."""


class ListAnswer(BaseModel):
    """What every list begins with."""

    object: Literal["list"]
    first_id: str | int | None
    last_id: str | int | None
    has_more: bool


def deleted_object(kind: str, id: str) -> dict[str, Any]:
    """What is answered when something was deleted."""
    return {"id": id, "object": kind, "deleted": True}


def cut(
    rows: Sequence[T], limit: int, after: str | None, *, id_of: Callable[[T], str]
) -> tuple[Sequence[T], bool]:
    """The ``limit`` rows that follow the one with the id ``after``, and whether there are more.

    Raises InvalidInput if there is no such row.
    """
    first = 0
    if after is not None:
        places = [place for place, row in enumerate(rows) if id_of(row) == after]
        if not places:
            raise InvalidInput(
                f"after must be an id in this list; {after[:100]!r} is not.", param="after"
            )
        first = places[0] + 1
    return rows[first : first + limit], len(rows) > first + limit


def listed(rows: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page that was already cut, in the list's shape."""
    return {
        "object": "list",
        "data": list(rows),
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
        "has_more": has_more,
    }
