"""``/v1/datasets``: upload, list, show and delete texts to train on."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, get_args

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ...catalog.datasets import Dataset, Upload, checked_dataset_name
from ...charlm.corpus.format import CorpusFormat
from ...errors import InvalidInput, TooLarge
from ...rendering.datasets import DatasetAnswer, DatasetDeleted, DatasetList, dataset_object
from ...rendering.ids import bare_after, bare_id, shown
from ...rendering.lists import deleted_object, listed
from ..dependencies import Backend, ServedBy
from ..http.json_text import JsonAnswer
from ..http.pages import After, Limit, Order
from ..http.uploads import FORM, Said, receive

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_MIB: Final = 1 << 20
_FIELDS: Final = ("name", "format")
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                        "format": {"enum": list(get_args(CorpusFormat))},
                    },
                }
            },
        },
    }
}


@router.post(
    "",
    response_model=DatasetAnswer,
    status_code=201,
    openapi_extra=_BODY,
    responses={200: {"model": DatasetAnswer, "description": "The same text already exists."}},
    summary="Upload a text",
)
async def upload(
    request: Request,
    served: ServedBy,
    name: Annotated[str | None, Query(description="A form may give it as a field.")] = None,
    format: Annotated[CorpusFormat | None, Query(description="Guessed when left out.")] = None,
) -> Response:
    """Send the text in UTF-8 as the body, or as a form with ``file``.

    The same bytes are stored once. The name of a form's file is the default name.
    """
    if name is not None:
        checked_dataset_name(name)
    limit = served.settings.max_body_mb * _MIB
    with served.datasets.receive() as coming:
        said = await receive(request, coming.write, limit)
        if coming.size_bytes > limit:
            raise TooLarge(f"The text is larger than {limit:,} bytes.", code="body_too_large")
        dataset, new = await _kept(served, coming, name, format, said)
    headers = {"location": f"/v1/datasets/{shown('dataset', dataset.id)}"}
    return JsonAnswer(dataset_object(dataset), 201 if new else 200, headers)


@router.get("", response_model=DatasetList, summary="List datasets")
async def list_datasets(
    served: ServedBy, limit: Limit = 20, after: After = None, order: Order = "desc"
) -> Response:
    """Every dataset, newest first."""
    last = bare_after("dataset", after)
    found, more = await asyncio.to_thread(
        served.datasets.list, after=last, limit=limit, order=order
    )
    return JsonAnswer(listed([dataset_object(each) for each in found], has_more=more))


@router.get("/{id}", response_model=DatasetAnswer, summary="Show a dataset")
async def get_dataset(served: ServedBy, id: str) -> Response:
    """Its statistics, and warnings about the text."""
    return JsonAnswer(
        dataset_object(await asyncio.to_thread(served.datasets.get, bare_id("dataset", id)))
    )


@router.delete("/{id}", response_model=DatasetDeleted, summary="Delete a dataset")
async def delete_dataset(served: ServedBy, id: str) -> Response:
    """Refused while an unfinished job needs it."""
    bare = bare_id("dataset", id)
    await asyncio.to_thread(served.datasets.delete, bare)
    return JsonAnswer(deleted_object("dataset", shown("dataset", bare)))


async def _kept(
    served: Backend, coming: Upload, name: str | None, format: CorpusFormat | None, said: Said
) -> tuple[Dataset, bool]:
    for field in said.fields:
        if field not in _FIELDS:
            raise InvalidInput(
                f"{field[:100]!r} is not a field of this form.",
                param=field[:100],
                code="unknown_field",
            )
    name = name or said.fields.get("name") or said.file_name
    if name is None:
        raise InvalidInput("Give the dataset a name: ?name=…", param="name", code="missing")
    form = format or _format(said.fields.get("format"))
    async with served.describing:  # each takes a processor and some memory
        return await asyncio.to_thread(served.datasets.keep, coming, name, form)


def _format(said: str | None) -> CorpusFormat | None:
    if not said:
        return None
    for form in get_args(CorpusFormat):
        if said == form:
            return form  # type: ignore[no-any-return]
    raise InvalidInput("format must be 'text' or 'lines'.", param="format")
