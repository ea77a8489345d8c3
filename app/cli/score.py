"""``charloom score``: how unusual each line is, and at which character."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from rich.text import Text

from ..errors import InvalidInput, NotFound, StorageFailed
from ..wiring.environment import read_settings
from . import console
from .options import AsJson, Url, command
from .texts import Texts, texts_of

_BOM: Final = b"\xef\xbb\xbf"
#: Bits of surprise from which a character is shown in this style.
_COLOURS: Final = ((12.0, "bold white on red"), (8.0, "black on yellow"), (5.0, "yellow"))


def score(
    name: Annotated[str, typer.Argument(help="A model: name, name@version or name@alias.")],
    file: Annotated[
        str, typer.Argument(help="A text file, one record per line; - is standard input.")
    ] = "-",
    per_character: Annotated[
        bool,
        typer.Option(
            "--per-character",
            help="Show the surprise of each character: coloured on a terminal, else as JSON.",
        ),
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show how unusual each line is.

    Gives percentile, bits per character and the line itself. Percentile 99 means:
    of a hundred held-out records, 99 are less surprising.
    """
    as_json = as_json or (per_character and not console.out.is_terminal)
    if not as_json:
        console.err.print("percentile  bits/char  text", style="dim")
    with texts_of(url, read_settings()) as texts:
        for text, fields in _scored(texts, name, _lines(file), details=per_character):
            if as_json:
                console.write(json.dumps({"text": text, **fields}, ensure_ascii=False) + "\n")
            else:
                console.out.print(_line(text, fields))


def _scored(
    texts: Texts, name: str, lines: Iterable[str], *, details: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line with its score; a line is kept only until its score arrives."""
    waiting: deque[str] = deque()

    def sent() -> Iterator[str]:
        for line in lines:
            waiting.append(line)
            yield line

    for fields in texts.score(name, sent(), details=details):
        yield waiting.popleft(), fields


def _line(text: str, fields: dict[str, Any]) -> Text:
    percentile = fields["percentile"]
    shown = "-" if percentile is None else f"{percentile:.1f}"
    line = Text(f"{shown:>10}  {fields['bits_per_character']:>9.2f}  ")
    characters = fields["per_character"]
    if characters is None:
        return line.append(console.printable(text))
    for each in characters:
        bits = -each["logprob"] / math.log(2)
        style = next((style for least, style in _COLOURS if bits >= least), "")
        # The end of a line is not a character; show it only if it is surprising.
        shown = console.printable(each["character"]) if each["character"] else "⏎" if style else ""
        line.append(shown, style)
    return line


def _lines(file: str) -> Iterator[str]:
    """The lines of a UTF-8 file without line ends; raises InvalidInput naming an invalid one."""
    if file == "-":
        yield from _decoded(sys.stdin.buffer, "standard input")
        return
    try:
        with Path(file).open("rb") as stream:
            yield from _decoded(stream, file)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {file}.", param="file") from error
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error.strerror}.", param="file") from error


def _decoded(stream: BinaryIO, where: str) -> Iterator[str]:
    for number, raw in enumerate(stream, 1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield line.rstrip(b"\r\n").decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{where}, line {number}: byte {error.start} is not UTF-8; convert the file first.",
                param="file",
            ) from error


app = command(score)
