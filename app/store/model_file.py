"""A model file's bytes, checked as far as possible without building a network.

Takes bytes, a file or a stream that may be damaged or hostile; gives a card and the bytes of
the weights, or raises ``InvalidArtifact`` with a sentence. The card determines the tensors:
names, shapes, dtypes, offsets and the file's size are checked against it before anything is
allocated, values and digest after. Does not import torch: the catalog checks files without
computing anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from pydantic import ValidationError

from ..validation import complaint
from .card import Card, WeightDtype
from .header import PREFIX, Entry, header_length, parse_header, parse_json, refuse

_PIECE: Final = 1 << 20
_ITEM_BYTES: Final[Mapping[WeightDtype, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}
_HEADER_NAMES: Final[Mapping[WeightDtype, str]] = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
}
_BF16_EXPONENT: Final = 0x7F80
"""The exponent bits of a bfloat16; if all are set, it is infinite or not a number."""


class CheckedFile(NamedTuple):
    """A checked file: its card with the file's size and digest, and the weights' bytes."""

    card: Card
    body: bytearray


def check(source: bytes | BinaryIO) -> CheckedFile:
    """Read and check a model file; a stream must be seekable and is read from its current position.

    Raises InvalidArtifact for any bytes that are not a valid model.
    """
    stream: BinaryIO = BytesIO(source) if isinstance(source, bytes) else source
    start = stream.tell()
    size = stream.seek(0, 2) - start
    stream.seek(start)
    prefix = stream.read(PREFIX)
    header = stream.read(header_length(prefix, size))
    card_text, entries = parse_header(header)
    card = _card(card_text)
    _check_layout(card, entries, size - PREFIX - len(header))
    body = _room(size - PREFIX - len(header))
    if _fill(stream, body) != len(body):
        refuse("it ends before its last tensor")
    if hashlib.sha256(body).hexdigest() != card.weights_sha256:
        refuse("its weights are not those its card was written for (the digest differs)")
    if not _finite(card.weight_dtype, body):
        refuse("a weight is not a finite number")
    digest = hashlib.sha256(prefix + header)
    digest.update(body)
    facts = {"size_bytes": size, "sha256": digest.hexdigest()}
    return CheckedFile(card.model_copy(update=facts), body)


def layout(card: Card) -> dict[str, Entry]:
    """The entry of each tensor: in the network's order, without gaps."""
    name_of_dtype, size = _HEADER_NAMES[card.weight_dtype], _ITEM_BYTES[card.weight_dtype]
    entries, begin = {}, 0
    for name, shape in card.network.weight_shapes(card.symbols).items():
        end = begin + count(shape) * size
        entries[name] = Entry(name_of_dtype, shape, begin, end)
        begin = end
    return entries


def count(shape: tuple[int, ...]) -> int:
    """The number of elements in a tensor of this shape."""
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def _finite(dtype: WeightDtype, body: bytearray) -> bool:
    if dtype == "bfloat16":  # numpy has no such type
        bits = np.frombuffer(body, dtype="<u2")
        return not bool(((bits & _BF16_EXPONENT) == _BF16_EXPONENT).any())
    return bool(np.isfinite(np.frombuffer(body, dtype=dtype)).all())


def _card(text: str) -> Card:
    parse_json(text, "its card")
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        found = complaint(error)
        if found.field == "format_version":
            refuse("its card has another format version; a newer Charloom may read it")
        refuse(f"its card is wrong ({found.sentence(found.field or 'as a whole')[:400]})")
    except ValueError:  # a lone surrogate, which is not UTF-8
        refuse("its card is not Unicode text")


def _check_layout(card: Card, entries: Mapping[str, Entry], body_size: int) -> None:
    expected = layout(card)
    # Exactly this order: each network has one layout, so it has one file.
    if list(entries) != list(expected):
        refuse("its tensors are not those of the network that its card describes")
    for name, entry in entries.items():
        if entry != expected[name]:
            refuse(f"the tensor {name} has another type, shape or offset than its card implies")
    if body_size != max(entry.end for entry in expected.values()):
        refuse("its size is not the one that its card describes")


def _room(size: int) -> bytearray:
    """Memory for the weights; the file is at least as large, but it may be sparse."""
    try:
        return bytearray(size)
    except MemoryError:
        refuse(f"its weights need {size:,} bytes of memory, which is more than there is")


def _fill(stream: BinaryIO, body: bytearray) -> int:
    """Read until ``body`` is full or the stream ends; returns the number of bytes."""
    view, filled = memoryview(body), 0
    while filled < len(body):
        piece = stream.read(min(_PIECE, len(body) - filled))
        if not piece:
            break
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    return filled
