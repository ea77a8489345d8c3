"""Receive a text as a raw body or a form, and write it as it arrives.

Takes a request; passes its text to a function that stores it and gives the request's
other fields. Never holds more than a piece of the text in memory. Knows neither texts
nor datasets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ...errors import InvalidInput
from .bodies import capped
from .problems import UnsupportedMedia

FORM: Final = "multipart/form-data"
#: Types that programs give a plain file; curl's --data-binary sends "urlencoded".
PLAIN: Final = frozenset(
    {"", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"}
)
_AT_ONCE: Final = 1 << 20
_MOST_KIND: Final = 1000
_MOST_FIELDS: Final = 16
_MOST_FIELD_BYTES: Final = 4096

Write = Callable[[bytes], None]


@dataclass
class Said:
    """The fields of a request other than its text."""

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None


async def receive(request: Request, write: Write, limit: int) -> Said:
    """Pass the text to ``write`` in a worker thread, piece by piece.

    Raises TooLarge beyond ``limit`` bytes, UnsupportedMedia, InvalidInput for a
    malformed form, and what ``write`` raises.
    """
    # Cut: a boundary has at most 70 characters, and the library takes a microsecond for each.
    kind, options = parse_options_header(request.headers.get("content-type", "")[:_MOST_KIND])
    if kind == FORM.encode():
        return await _form(request, options.get(b"boundary", b""), write, limit)
    _check_plain(kind.decode("latin-1"), options.get(b"charset", b"utf-8"))
    async for piece in _gathered(capped(request, limit)):
        await asyncio.to_thread(write, piece)
    return Said()


def _check_plain(kind: str, charset: bytes) -> None:
    if kind not in PLAIN:
        raise UnsupportedMedia(
            "Send the text itself, with Content-Type: text/plain; charset=utf-8, or a form "
            "with a field named file."
        )
    if charset.lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise UnsupportedMedia(
            "Send the text in UTF-8 (for example: iconv -f latin1 -t utf-8).",
            code="unsupported_charset",
        )


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces large enough to be worth a thread."""
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= _AT_ONCE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _form(request: Request, boundary: bytes, write: Write, limit: int) -> Said:
    try:
        form = _Form(boundary, write)
        # The form's own lines are not part of the text's limit.
        async for piece in _gathered(capped(request, limit + (64 << 10))):
            await asyncio.to_thread(form.feed, piece)
    except MultipartParseError as error:
        raise _no_form("The form is malformed.") from error
    if not form.whole:
        raise _no_form("The form ends before its last boundary.")
    if not form.has_file:
        raise InvalidInput("The form has no field named file.", param="file", code="missing")
    return form.said


def _no_form(message: str, param: str | None = None) -> InvalidInput:
    return InvalidInput(message, param=param, code="invalid_form")


class _Form:
    """A form being read: one field ``file`` with the text, and short fields."""

    def __init__(self, boundary: bytes, write: Write) -> None:
        if not 1 <= len(boundary) <= 70:
            raise _no_form("The form has no boundary; have the client library set Content-Type.")
        self.said = Said()
        self.whole = False
        self.has_file = False
        self._write = write
        self._name = ""
        self._value = bytearray()
        self._header, self._header_value = b"", b""
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._read_header,
                "on_header_value": self._read_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._name_part,
                "on_part_data": self._read,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        self._parser.write(piece)

    def _begin(self) -> None:
        self._name, self._disposition = "", b""
        self._value.clear()

    def _read_header(self, piece: bytes, start: int, end: int) -> None:
        self._header += piece[start:end]

    def _read_header_value(self, piece: bytes, start: int, end: int) -> None:
        self._header_value += piece[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header, self._header_value = b"", b""

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = _text(options.get(b"name", b""))
        if self._name == "file":
            if self.has_file:
                raise _no_form("The form has more than one file.", "file")
            self.has_file = True
            self.said.file_name = _last_part(_text(options.get(b"filename", b"")))
        elif self._name in self.said.fields:
            raise _no_form(f"The form has {self._name[:100]!r} twice.", self._name[:100])
        elif len(self.said.fields) >= _MOST_FIELDS:
            raise _no_form(f"The form has more than {_MOST_FIELDS} fields.")

    def _read(self, piece: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._write(piece[start:end])
            return
        self._value += piece[start:end]
        if len(self._value) > _MOST_FIELD_BYTES:
            raise _no_form(f"The field {self._name[:100]!r} is too long.", self._name[:100])

    def _end_part(self) -> None:
        if self._name != "file":
            self.said.fields[self._name] = _text(bytes(self._value))

    def _end(self) -> None:
        self.whole = True


def _text(raw: bytes) -> str:
    with suppress(UnicodeDecodeError):
        return raw.decode()
    return raw.decode("latin-1")


def _last_part(path: str) -> str | None:
    """The file's name without the path that a browser may send."""
    return path.replace("\\", "/").rpartition("/")[2] or None
