"""How each subcommand is declared, and the options they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..bounds import Bound

Url = Annotated[
    str | None, typer.Option(help="Use the server at this URL instead of the local store.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def command(function: Callable[..., None]) -> typer.Typer:
    """A subcommand that runs ``function``."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(function.__name__)(function)
    return alone


def within(bound: Bound, help: str = "", *names: str) -> Any:
    """An option for a bounded number."""

    def check(value: float | None) -> float | None:
        if value is not None and not bound.holds(value):
            raise typer.BadParameter(f"must be {bound.expected(value)}.")
        return value

    return typer.Option(*names, callback=check, help=f"{help} {str(bound).capitalize()}.".lstrip())
