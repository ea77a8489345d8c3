"""What was seen inside a network as JSON, and the schema of that JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, Field

from ..charlm.inspection import Inspection, Kind
from ..charlm.vocabulary import Vocabulary
from .scores import Alternative, alternatives, shown_names

_DIGITS: Final = 3
_STRONGEST: Final = 10


class Position(BaseModel):
    character: str | None = Field(description="null for the boundary that begins the text.")
    activations: list[float] = Field(description="Of the units, in their order.")
    next: list[Alternative] = Field(description="The likeliest characters to follow.")


class Place(BaseModel):
    position: int = Field(description="Index in positions.")
    value: float


class Strongest(BaseModel):
    unit: int
    places: list[Place] = Field(description="Where it is highest, the highest first.")


class InspectAnswer(BaseModel):
    object: Literal["inspection"]
    model: str
    layer: int
    kind: Kind
    units: list[int]
    positions: list[Position]
    strongest: list[Strongest] = Field(description="Of the units that were asked for by number.")


class InspectionRenderer:
    """One inspection of a text as parts of the answer."""

    def __init__(
        self, vocabulary: Vocabulary, text: str, seen: Inspection, chosen: Sequence[int]
    ) -> None:
        """``chosen``: the units whose strongest places are named; all that were seen or none."""
        self.strongest = [_strongest(seen, *each) for each in enumerate(chosen)]
        self._names = shown_names(vocabulary)
        self._text = text
        self._seen = seen

    def positions(self) -> Iterator[dict[str, Any]]:
        """The boundary that begins the text, then each character."""
        seen = self._seen
        for place, character in enumerate([None, *self._text]):
            yield {
                "character": character,
                "activations": _rounded(seen.values_TU[place]),
                "next": alternatives(self._names, self._next(place)),
            }

    def _next(self, place: int) -> Iterator[tuple[int, float]]:
        ids, logprobs = self._seen.ids_TN[place].tolist(), self._seen.logprobs_TN[place].tolist()
        return (each for each in zip(ids, logprobs, strict=True) if each[0] >= 0)


def _strongest(seen: Inspection, column: int, unit: int) -> dict[str, Any]:
    """The places where a unit is highest; the first of equal ones comes first."""
    values = seen.values_TU[:, column]
    places = np.argsort(-values, kind="stable")[:_STRONGEST]
    shown = zip(places.tolist(), _rounded(values[places]), strict=True)
    return {"unit": unit, "places": [{"position": p, "value": v} for p, v in shown]}


def _rounded(values: Any) -> list[float]:
    return [round(each, _DIGITS) for each in values.tolist()]
