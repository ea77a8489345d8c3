"""Model files that nobody's writer made: a true one, taken apart and put together otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import InvalidArtifact
from app.store.artifact import read, write
from tests.models import tiny_artifact

Fields = dict[str, Any]

TRUE_FILE = write(tiny_artifact())


def taken_apart(file: bytes = TRUE_FILE) -> tuple[Fields, Fields, bytes]:
    """The header's fields, the card's and the tensors' bytes."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["charloom"]), file[8 + length :]


def framed(header: bytes | object, body: bytes) -> bytes:
    """A file with this header; anything but bytes is written as JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def with_card(card: Fields | str, body: bytes | None = None, header: Fields | None = None) -> bytes:
    """The true file with another card, whose digest is right: what a forger would write."""
    text = card if isinstance(card, str) else json.dumps(card)
    own_header, _, own_body = taken_apart()
    fields = dict(own_header if header is None else header)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    fields["__metadata__"] = {"charloom": text, "charloom_sha256": digest}
    return framed(fields, own_body if body is None else body)


def with_body(body: bytes) -> bytes:
    """The true file with other weights, whose digest is right."""
    _, card, _ = taken_apart()
    return with_card(card | {"weights_sha256": hashlib.sha256(body).hexdigest()}, body)


def with_header(change: Callable[[Fields], object]) -> bytes:
    """The true file with its header's fields changed in place."""
    header, _, body = taken_apart()
    change(header)
    return framed(header, body)


def refusal(file: bytes) -> str:
    """Why a file is refused: one line of printable text."""
    with pytest.raises(InvalidArtifact) as caught:
        read(file)
    check_message(caught.value.message)
    return caught.value.message


def check_message(message: str) -> None:
    """What a hostile file may make us say: bounded, and nothing that moves a cursor."""
    assert message.startswith("This is not a usable model file: ")
    assert message.isprintable()
    assert len(message.encode()) < 3_000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
