"""The ``charloom`` command: one file per subcommand, loaded when it is called.

A subcommand's file imports what it needs, including torch; this one must not, so that
``--help`` answers at once. The line of help beside each name is the first line of its
function's docstring; a test compares them.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from ..errors import CharloomError

__all__ = ["app", "main"]

#: Subcommand -> its line of help; its file has the same name.
COMMANDS: Final = {
    "serve": "Serve the models over HTTP.",
    "train": "Train on a text file and publish the model.",
    "generate": "Write new text.",
    "score": "Show how unusual each line is.",
    "models": "List the models with their network, quality and size.",
    "jobs": "List, watch and control training jobs.",
    "doctor": "Check the installation and print every setting in force.",
    "bench": "Compare a model's speed with a plain loop over nn.LSTM.",
}


class _Commands(TyperGroup):
    """Lists every subcommand by name and loads only the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{cmd_name}")
        return typer.main.get_command(module.app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name="charloom",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train, store and serve character-level recurrent language models.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"charloom {metadata.version('charloom')}")
        raise typer.Exit


def main() -> None:
    """Run a command; errors that the user can fix are one line on standard error."""
    try:
        app()
    except CharloomError as error:
        colour = typer.colors.RED if sys.stderr.isatty() else None
        typer.secho(f"charloom: {error.message}", fg=colour, err=True)
        sys.exit(1)
    except BrokenPipeError:  # as in `charloom generate names | head`
        sys.stderr.close()
        sys.exit(0)
