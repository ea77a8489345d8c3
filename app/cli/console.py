"""What the commands share: durations, the terminal."""

from __future__ import annotations

import re
import sys
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

out: Final = Console(highlight=False, soft_wrap=True)
err: Final = Console(stderr=True, highlight=False, soft_wrap=True)

_WIDE: Final = 1_000
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def duration(text: str) -> float:
    """Seconds, from ``90``, ``90s``, ``3m``, ``1.5h`` or ``1d``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration: write 90s, 3m or 1.5h.")
    return float(found[1]) * _UNITS[found[2]]


def clock(seconds: float | None) -> str:
    """``2:05`` or ``1:02:05``; ``-`` for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor or colour what follows."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def show(table: Table) -> None:
    """Print a table as wide as the terminal; into a pipe, never truncate it."""
    out.print(table, width=None if out.is_terminal else _WIDE)


def write(text: str) -> None:
    """Write text to standard output unchanged; on a terminal, escape control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
