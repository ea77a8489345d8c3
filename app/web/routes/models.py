"""``/v1/models``: show models, their versions and files; import, alias and delete them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, BinaryIO, Final

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ...catalog.model_rows import ModelVersion
from ...errors import CharloomError, InvalidInput, StorageFailed
from ...rendering.lists import deleted_object, listed
from ...rendering.models import (
    AliasAnswer,
    CalibrationAnswer,
    ModelAnswer,
    ModelDeleted,
    ModelList,
    alias_object,
    calibration_object,
    model_object,
    version_object,
)
from ...store.artifact import Artifact, read
from ...store.layout import REFERENCE_LENGTH, checked_alias, checked_name
from ..dependencies import Backend, ServedBy
from ..http.bodies import capped, documented, json_body
from ..http.json_text import JsonAnswer
from ..http.pages import After, Limit, Order
from ..http.streaming import Live
from ..schemas import AliasRequest

router = APIRouter(prefix="/v1/models", tags=["models"])

SAFETENSORS: Final = "application/octet-stream"
_MIB: Final = 1 << 20
_LOOK_SECONDS: Final = 3.0


@router.get("", response_model=ModelList, summary="List models")
async def list_models(
    served: ServedBy, limit: Limit = 100, after: After = None, order: Order = "asc"
) -> Response:
    """Every model with its newest version.

    A page has a hundred by default: OpenAI's client reads only the first page. ``status`` is
    what this server sees of the version's file.
    """
    found, more = await asyncio.to_thread(
        served.registry.newest_page, after=after, limit=limit, order=order
    )
    seen = await _looked_at(served, found)
    return JsonAnswer(listed([model_object(each) for each in seen], has_more=more))


@router.post(
    "",
    response_model=ModelAnswer,
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    summary="Import a model file",
)
async def import_model(
    request: Request, served: ServedBy, name: Annotated[str, Query(max_length=REFERENCE_LENGTH)]
) -> Response:
    """Publish a Charloom ``.safetensors`` file as the next version of ``name``.

    The whole file is checked first.
    """
    checked_name(name)
    with await _received(request, served) as stream:
        version = await asyncio.to_thread(_publish, served, name, stream)
    served.loader.forget_names()
    headers = {"location": f"/v1/models/{version.id}"}
    return JsonAnswer(model_object(version), 201, headers)


@router.get("/{name:path}/versions", response_model=ModelList, summary="List versions")
async def list_versions(
    served: ServedBy, name: str, limit: Limit = 20, after: After = None, order: Order = "desc"
) -> Response:
    """Every version of a model, newest first, each with the aliases that name it."""
    found, more = await asyncio.to_thread(
        served.registry.version_page, name, after=after, limit=limit, order=order
    )
    seen = await _looked_at(served, found)
    return JsonAnswer(listed([version_object(each) for each in seen], has_more=more))


@router.get("/{model:path}/file", summary="Download a model file", response_class=Response)
async def download(request: Request, served: ServedBy, model: str) -> Response:
    """The model as one ``.safetensors`` file; its digest is the ETag.

    The whole file is checked before the first byte is sent.
    """
    version = await asyncio.to_thread(served.registry.resolve, model)
    etag = f'"{version.sha256}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    filename = f"{version.name.replace(':', '-')}-{version.version}.safetensors"
    headers["content-length"] = str(version.size_bytes)
    headers["content-disposition"] = f'attachment; filename="{filename}"'
    pieces = await asyncio.to_thread(served.registry.fetch, version)
    return Live(_threaded(pieces), SAFETENSORS, headers=headers)


@router.get(
    "/{model:path}/calibration",
    response_model=CalibrationAnswer,
    summary="Show how surprising held-out records are",
)
async def show_calibration(served: ServedBy, model: str) -> Response:
    """The distribution that a score's percentile is taken from, for a histogram or a threshold."""
    with await served.hold(model) as held:
        quantiles = None if held.calibration is None else held.calibration.quantiles
        return JsonAnswer(calibration_object(held.version.id, quantiles))


@router.put(
    "/{name:path}/aliases/{alias}",
    response_model=AliasAnswer,
    openapi_extra=documented(AliasRequest),
    summary="Point an alias at a version",
)
async def put_alias(
    served: ServedBy,
    name: str,
    alias: str,
    body: Annotated[AliasRequest, json_body(AliasRequest)],
) -> Response:
    """Make ``name@alias`` mean this version, whatever it meant before."""
    await asyncio.to_thread(served.registry.set_alias, name, alias, body.version)
    served.loader.forget_names()
    return JsonAnswer(alias_object(name, alias, body.version))


@router.delete(
    "/{name:path}/aliases/{alias}", response_model=AliasAnswer, summary="Delete an alias"
)
async def delete_alias(served: ServedBy, name: str, alias: str) -> Response:
    """The version that it named stays."""
    checked_alias(alias)
    named = await asyncio.to_thread(served.registry.delete_alias, name, alias)
    served.loader.forget_names()
    return JsonAnswer(alias_object(name, alias, named, deleted=True))


@router.get("/{model:path}", response_model=ModelAnswer, summary="Show a model")
async def get_model(served: ServedBy, model: str) -> Response:
    """A model by ``name``, ``name@version`` or ``name@alias``."""
    (version,) = await _looked_at(served, [await asyncio.to_thread(served.registry.resolve, model)])
    return JsonAnswer(model_object(version))


@router.delete("/{model:path}", response_model=ModelDeleted, summary="Delete a model or version")
async def delete_model(served: ServedBy, model: str) -> Response:
    """``name@3`` deletes one version; ``name`` deletes all of them and the aliases."""
    name, at, selector = model.partition("@")
    if not at:
        await asyncio.to_thread(served.registry.delete, name)
    elif not selector.isdecimal():
        raise InvalidInput(
            "Name the version to delete by its number, as in names@3.", param="model"
        )
    else:
        version = await asyncio.to_thread(served.registry.resolve, model)
        await asyncio.to_thread(served.registry.delete_version, name, version.version)
    served.loader.forget_names()
    return JsonAnswer(deleted_object("model", model))


async def _received(request: Request, served: Backend) -> BinaryIO:
    """The body in an unnamed temporary file, positioned at its start."""
    limit = served.settings.max_body_mb * _MIB
    folder = await asyncio.to_thread(served.datasets.scratch_folder)
    try:
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        try:
            async for piece in capped(request, limit):
                await asyncio.to_thread(stream.write, piece)
            stream.seek(0)
        except BaseException:
            stream.close()
            raise
    except OSError as error:
        raise StorageFailed(f"The upload could not be stored: {error.strerror}.") from error
    return stream


def _publish(served: Backend, name: str, stream: BinaryIO) -> ModelVersion:
    artifact: Artifact = read(stream)
    return served.registry.publish(name, artifact)


async def _looked_at(served: Backend, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The versions with the status of their files; missing if the store does not answer soon."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            look = partial(served.registry.looked_at, versions)
            return await asyncio.get_running_loop().run_in_executor(served.lookers, look)
    except TimeoutError:
        reason = "The model store does not answer."
        return [replace(each, status="missing", status_reason=reason) for each in versions]


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The pieces, each read in a thread; the answer is cut off if the file fails on the way."""
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
    except CharloomError as error:
        # The length was promised. The server says in one line that the answer is not complete;
        # an exception that went on from here would be logged twice, with all its frames.
        raise ClientDisconnect from error
