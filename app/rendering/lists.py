"""One shape for every list (a page of rows, and whether there are more) and every deletion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel

from ..bounds import Bound

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


def listed(rows: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of rows, in the list's shape."""
    return {
        "object": "list",
        "data": list(rows),
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
        "has_more": has_more,
    }
