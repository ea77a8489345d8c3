"""``POST /v1/inspect``: what the units of a network hold at each character of a text."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...charlm.inspection import inspect
from ...errors import InvalidInput
from ...rendering.inspection import InspectAnswer, InspectionRenderer
from ..dependencies import ModelHold, ServedBy
from ..http.answers import Many, json_answer
from ..http.bodies import documented, json_body
from ..schemas import InspectRequest

router = APIRouter(tags=["scoring"])

_NEXT: Final = 5
_AT_ONCE: Final = 16  # positions


@router.post(
    "/v1/inspect",
    response_model=InspectAnswer,
    openapi_extra=documented(InspectRequest),
    summary="Look inside a network",
)
async def look_inside(
    request: Request,
    served: ServedBy,
    body: Annotated[InspectRequest, json_body(InspectRequest)],
) -> Response:
    """The activations of one layer after each character, and what the network expects next."""
    with await served.hold(body.model) as held:
        layer = _checked_layer(body, held)
        units = _checked_units(body, held)
        numbers = (len(body.input) + 1) * (len(units) + _NEXT)
        with served.answers.reserve(numbers, "input") as reservation:
            made = await served.inspecting.run(
                request.receive, partial(_inspected, body, held, layer, units)
            )
            return await json_answer(
                lambda: {
                    "object": "inspection",
                    "model": held.version.id,
                    "layer": layer,
                    "kind": body.kind,
                    "units": units,
                    "positions": Many(made.positions(), _AT_ONCE),
                    "strongest": made.strongest,
                },
                numbers,
                numbers,
                reservation.handed_on(),
            )


def _inspected(
    body: InspectRequest,
    held: ModelHold,
    layer: int,
    units: list[int],
    stopped: Callable[[], bool],
) -> InspectionRenderer:
    """Read the text and find the strongest places; takes up to a second."""
    seen = inspect(
        held.network.decoder,
        held.vocabulary.encode(body.input),
        layer=layer,
        kind=body.kind,
        units=np.array(units, dtype=np.int64),
        top=_NEXT,
        stopped=stopped,
    )
    if seen is None:
        raise CancelledError  # nobody waits for it any more
    return InspectionRenderer(held.vocabulary, body.input, seen, body.units)


def _checked_layer(body: InspectRequest, held: ModelHold) -> int:
    layers = held.card.network.layers
    layer = layers - 1 if body.layer is None else body.layer
    if layer >= layers:
        raise InvalidInput(
            f"layer must be at most {layers - 1}: the network has {layers}, counted from 0.",
            param="layer",
            code="out_of_range",
        )
    return layer


def _checked_units(body: InspectRequest, held: ModelHold) -> list[int]:
    network = held.card.network
    if body.kind == "cell" and network.descriptor.states < 2:
        raise InvalidInput(
            f"kind must be hidden: a {network.cell} has no cell state.",
            param="kind",
            code="unsupported",
        )
    units = body.units or list(range(network.hidden_size))
    if len(set(units)) < len(units):
        raise InvalidInput("units must name each unit once.", param="units", code="invalid_value")
    if max(units) >= network.hidden_size:
        raise InvalidInput(
            f"units must be at most {network.hidden_size - 1}: a layer has "
            f"{network.hidden_size}, counted from 0.",
            param="units",
            code="out_of_range",
        )
    return units
