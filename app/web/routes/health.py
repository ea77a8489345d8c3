"""Liveness, readiness, metrics, and the documentation page."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import FileResponse, Response

from ...errors import CharloomError, NotFound
from ..dependencies import ServedBy
from ..http.json_text import JsonAnswer
from ..http.problems import retry_headers

router = APIRouter(tags=["health"])

_PAGE: Final = Path(__file__).parents[1] / "ui" / "docs"
_COUNT_SECONDS: Final = 2.0
_FILES: Final = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon.png", "start.js"})
_POLICY: Final = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
}


@router.get("/livez", summary="Check that the event loop answers")
async def livez() -> Response:
    return JsonAnswer({"status": "ok"})


@router.get("/readyz", summary="Check that requests are served")
async def readyz(request: Request) -> Response:
    """503, with what is missing and why, while the server starts, drains or lacks something."""
    refusal = request.app.state.lifecycle.refusal()
    if refusal is not None:
        name = "startup" if refusal.code == "starting" else "engine"
        body = {"status": "unavailable", "missing": [name], "reasons": {name: refusal.message}}
        body |= {"code": refusal.code, "message": refusal.message}
        return JsonAnswer(body, 503, retry_headers(refusal))
    missing = await request.app.state.backend.missing()
    if missing:
        told = {"status": "unavailable", "missing": list(missing), "reasons": missing}
        return JsonAnswer(told, 503)
    return JsonAnswer({"status": "ok", "missing": []})


@router.get("/metrics", summary="Metrics for Prometheus")
async def metrics(request: Request, served: ServedBy) -> Response:
    # The database may be what has failed: then the last counts are shown again.
    with suppress(CharloomError, TimeoutError):
        request.app.state.job_gauge.show(await served.job_counts(_COUNT_SECONDS))
    return Response(generate_latest(request.app.state.prometheus), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return FileResponse(_PAGE / "index.html", headers=_POLICY)


@router.get("/docs/{name}", include_in_schema=False)
async def docs_file(name: str) -> Response:
    """The page's own files, so that it works without a network."""
    if name not in _FILES:
        raise NotFound("There is nothing at this path; see /docs.", code="path_not_found")
    return FileResponse(_PAGE / name)
