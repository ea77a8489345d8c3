"""The frame of a safetensors file: a length, a JSON header, then the tensors' bytes.

Takes the bytes of a header that anyone may have written; gives the card's text and the place
of each tensor, or raises ``InvalidArtifact``. Parsed here rather than by a library, so that
every bound is visible: no number in the file decides how much is allocated.

The format: https://huggingface.co/docs/safetensors (8 bytes, little-endian: the
header's length; the header, padded with spaces; the tensors without gaps).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from ..errors import InvalidArtifact, TooLarge

PREFIX: Final = 8
MAX_HEADER: Final = 1_000_000
MAX_TENSORS: Final = 64
CARD_KEY: Final = "charloom"
# The weights' digest is in the card; this is the digest of the card itself. Without it, a
# flipped bit in the vocabulary would give a model that reads and writes other characters.
DIGEST_KEY: Final = "charloom_sha256"

_METADATA: Final = "__metadata__"


class Entry(NamedTuple):
    """One tensor: safetensors' dtype name, shape, begin and end (exclusive) after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def refuse(reason: str) -> NoReturn:
    """Raise InvalidArtifact with a whole sentence in printable characters.

    ``reason`` may quote the file.
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in reason)
    raise InvalidArtifact(f"This is not a usable model file: {shown}.")


def header_length(prefix: bytes, file_size: int) -> int:
    """The header's length from the first 8 bytes, checked against its bounds."""
    if len(prefix) < PREFIX:
        refuse("it is shorter than 8 bytes")
    length = int.from_bytes(prefix[:PREFIX], "little")
    if length > MAX_HEADER:
        refuse(f"its header would be longer than {MAX_HEADER:,} bytes")
    if length > file_size - PREFIX:
        refuse("it ends inside its header")
    return length


def parse_header(raw: bytes) -> tuple[str, dict[str, Entry]]:
    """The card's text and every tensor's entry, in the file's order."""
    if not raw.startswith(b"{"):
        refuse("its header is not a JSON object")
    fields = parse_json(raw, "its header")
    metadata = fields.pop(_METADATA, None)
    card = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(card, str):
        refuse("its header has no Charloom card")
    # No other keys, so that a damaged digest key is not mistaken for an absent digest: the
    # first files had none.
    if not metadata.keys() <= {CARD_KEY, DIGEST_KEY}:
        refuse("its header has more than a card")
    if metadata.get(DIGEST_KEY, _digest(card)) != _digest(card):
        refuse("its card is not the one that was written (the digest differs)")
    if len(fields) > MAX_TENSORS:
        refuse(f"it has more than {MAX_TENSORS} tensors")
    return card, {name: _entry(name, value) for name, value in fields.items()}


def parse_json(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object without duplicate keys; ``what`` begins the error message."""
    try:
        # Bytes are decoded strictly here: json would also accept UTF-16 and lone surrogates.
        decoded = text if isinstance(text, str) else text.decode()
        fields = json.loads(decoded, object_pairs_hook=_distinct)
    except _Twice:
        refuse(f"{what} names something twice")
    except (ValueError, RecursionError):
        # UnicodeDecodeError and JSONDecodeError are ValueErrors; deep nesting: RecursionError.
        refuse(f"{what} is not JSON")
    if not isinstance(fields, dict):
        refuse(f"{what} is not a JSON object")
    return fields


class _Twice(Exception):
    """An object has a key twice; JSON parsers disagree about which one counts."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Twice
    return fields


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode("utf-8", "surrogatepass")).hexdigest()


def _entry(name: str, value: object) -> Entry:
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            if all(type(number) is int for number in (*shape, begin, end)):
                return Entry(dtype, tuple(shape), begin, end)
    refuse(f"the entry of the tensor {name[:80]!r} is malformed")


def make_header(card: str, entries: Mapping[str, Entry]) -> bytes:
    """The first bytes of a file: the length and the header, padded to align the tensors.

    Raises TooLarge if the card does not fit.
    """
    fields: dict[str, Any] = {_METADATA: {CARD_KEY: card, DIGEST_KEY: _digest(card)}}
    for name, entry in entries.items():
        fields[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.begin, entry.end],
        }
    raw = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % PREFIX)
    if len(raw) > MAX_HEADER:
        raise TooLarge(
            f"The model's description has {len(raw):,} bytes; the limit is {MAX_HEADER:,}. "
            "Most of it is the vocabulary, so remove rare characters from the text."
        )
    return len(raw).to_bytes(PREFIX, "little") + raw
