"""What a look at a stored file shows without reading it."""

from __future__ import annotations

from typing import NamedTuple


class Stamp(NamedTuple):
    """A file's size in bytes, and a ``mark`` that changes with its content.

    Two equal marks mean the same content; an empty mark means nothing.
    """

    size_bytes: int
    mark: str
