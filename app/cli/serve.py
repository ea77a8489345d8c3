"""``charloom serve``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .. import __name__ as _package
from ..wiring.environment import read_settings
from .options import command


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    reload: Annotated[bool, typer.Option(help="Restart when the code changes.")] = False,
) -> None:
    """Serve the models over HTTP.

    Every setting is an environment variable, CHARLOOM_…; charloom doctor shows them.
    """
    from ..web.http import server

    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            os.environ[f"CHARLOOM_{name}"] = str(value)
    server.serve(read_settings(), f"{_package}.main:create_app", reload=reload)


app = command(serve)
