"""Read a text file as a stream, check it, and count what is in it.

Takes any UTF-8 file; gives its text in pieces and a ``Survey``. A byte-order mark is dropped;
Windows and old Macintosh line endings become ``\\n``. The memory needed does not grow with the
file: lines are counted by length, never listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..charlm.vocabulary import code_points
from ..errors import InvalidCorpus, NotFound, StorageFailed
from .line_lengths import LineLengths

NEWLINE: Final = 10
_PIECE: Final = 1 << 20  # bytes read at once


@dataclass
class Survey:
    """What the first pass over a file counts."""

    bytes: int = 0
    characters: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    counts: dict[int, int] = field(default_factory=dict)  # of each code point
    had_mark: bool = False
    had_returns: bool = False
    lines: LineLengths = field(default_factory=LineLengths)


def survey(path: Path) -> Survey:
    """Count what is in a file; raises InvalidCorpus as ``text_pieces``, and for an empty text."""
    found, open_line = Survey(), 0  # characters so far of the line being read
    for text in text_pieces(path, found):
        points = code_points(text)
        found.characters += len(points)
        counted = np.bincount(points)  # ten times as fast as np.unique
        for point in np.flatnonzero(counted).tolist():
            found.counts[point] = found.counts.get(point, 0) + int(counted[point])
        ends = np.flatnonzero(points == NEWLINE)
        if len(ends):
            lengths = np.diff(ends, prepend=-1) - 1
            lengths[0] += open_line
            found.lines.add(lengths)
            open_line = len(points) - int(ends[-1]) - 1
        else:
            open_line += len(points)
    if open_line:
        found.lines.add(np.array([open_line]))
    if not found.characters:
        raise InvalidCorpus("The text is empty.", code="empty_text")
    return found


def text_pieces(path: Path, survey: Survey | None = None) -> Iterator[str]:
    """The text of a file in pieces, normalised; ``survey`` records what was found.

    Raises InvalidCorpus for bytes that are not UTF-8 and for a NUL, giving the position.
    """
    held_return, first = "", True
    for text in _decoded_pieces(path, survey):
        if first and text:
            first = False
            if text[0] == "\ufeff":
                text = text[1:]
                if survey:
                    survey.had_mark = True
        text = held_return + text
        held_return = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r")
        if survey and "\r" in text:
            survey.had_returns = True
        yield text.replace("\r\n", "\n").replace("\r", "\n")
    if held_return:
        yield "\n"


def _decoded_pieces(path: Path, survey: Survey | None) -> Iterator[str]:
    """The text of a file in pieces as it is there; ``survey`` takes size and digest."""
    pending, offset = b"", 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                if survey:
                    survey.digest.update(piece)
                    survey.bytes += len(piece)
                text, pending = _decoded(pending + piece, offset, last=False)
                offset += len(text.encode())
                yield text
            _decoded(pending, offset, last=True)  # raises if the file ends inside a character
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.", code="file_not_found") from error
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error


def _decoded(raw: bytes, offset: int, *, last: bool) -> tuple[str, bytes]:
    """The text of ``raw`` and the bytes of an incomplete last character."""
    try:
        text, rest = raw.decode("utf-8"), b""
    except UnicodeDecodeError as error:
        cut_short = error.end == len(raw) and error.reason == "unexpected end of data"
        if last or not cut_short:
            raise InvalidCorpus(
                f"The text is not valid UTF-8: byte {offset + error.start} "
                f"(0x{raw[error.start]:02x}) is not valid there. Save it as UTF-8, or convert it "
                "(for example: iconv -f latin1 -t utf-8).",
                code="invalid_utf8",
            ) from error
        text, rest = raw[: error.start].decode("utf-8"), raw[error.start :]
    place = text.find("\0")
    if place >= 0:
        raise InvalidCorpus(
            f"The text has a NUL at byte {offset + len(text[:place].encode())}: it is not plain "
            "text, or it is in UTF-16. Convert it to UTF-8 and remove NULs.",
            code="nul_in_text",
        )
    return text, rest
