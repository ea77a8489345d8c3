"""Every route that an application answers, also those of included routers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, path) of each, with the path's parameters as ``{name}``."""
    for route in _flat(app.routes):
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, route.path.replace(":path}", "}")


def _flat(routes: Iterable[Any]) -> Iterator[Route]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _flat(included.routes)
        else:
            assert isinstance(route, Route), route
            yield route
