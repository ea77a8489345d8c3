"""How each subcommand is declared, and options that several of them have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..charlm.bounds import Bound

Url = Annotated[str | None, typer.Option(help="A server, instead of what is on this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def command(function: Callable[..., None]) -> typer.Typer:
    """A subcommand of its own."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(function.__name__)(function)
    return alone


def within(bound: Bound, help: str | None = None) -> Any:
    """An option of a number that is bounded; an end that is excluded is refused later."""
    return typer.Option(min=bound.least, max=bound.most, help=help)
