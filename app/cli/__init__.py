"""The ``charloom`` command: one file a subcommand, all of them registered here."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from app.cli import bench, console, doctor, generate, jobs, models, score, serve, train
from app.errors import CharloomError

__all__ = ["app", "main"]

app = typer.Typer(
    name="charloom",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train, store and serve character-level recurrent language models.",
)
app.command()(serve.serve)
app.command()(train.train)
app.command()(generate.generate)
app.command()(score.score)
app.command()(models.models)
app.add_typer(jobs.app)
app.command()(doctor.doctor)
app.command()(bench.bench)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"charloom {metadata.version('charloom')}")
        raise typer.Exit


def main() -> None:
    """Run a command; what the user can mend is one line on standard error."""
    try:
        app()
    except CharloomError as error:
        console.complain(error)
        sys.exit(1)
    except BrokenPipeError:  # as in `charloom generate names | head`
        sys.stderr.close()
        sys.exit(0)
