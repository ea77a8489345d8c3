"""The query parameters of every list: which rows, how many, after which, in which order."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query

from ...rendering.lists import PAGE_BOUND
from ...store.layout import NAME_LENGTH, REFERENCE_LENGTH
from ...validation import bounded

Limit = Annotated[int, Query(**bounded(PAGE_BOUND))]
After = Annotated[
    str | None, Query(max_length=REFERENCE_LENGTH, description="The last id of the previous page.")
]
Order = Annotated[Literal["asc", "desc"], Query(description="By time; models by name or number.")]
OfModel = Annotated[str | None, Query(max_length=NAME_LENGTH, pattern=r"^[ -~]*$")]
