"""Damaged files: whatever happens to the bytes, the same model comes out or a refusal."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidArtifact
from app.store.artifact import read, write
from tests.models import tiny_artifact
from tests.store import forging
from tests.store.forging import TRUE_FILE, framed, refusal, taken_apart, with_card
from tests.store.test_artifact import same

_, CARD, BODY = taken_apart()
TRUE = tiny_artifact()


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """The true file with some bytes changed, taken out, put in, doubled or cut off."""
    file = bytearray(TRUE_FILE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(file)) | st.integers(0, min(16, len(file))))
        length = draw(st.integers(0, 16))
        piece = draw(st.sampled_from(["set", "cut", "put", "double", "flip", "end"]))
        if piece == "set":
            file[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif piece == "cut":
            del file[at : at + length]
        elif piece == "put":
            file[at:at] = draw(
                st.binary(max_size=16)
                | st.sampled_from(list(b'{}[]",:0 \\u')).map(lambda c: bytes([c]))
            )
        elif piece == "double":
            file[at:at] = file[at : at + 16 * length]
        elif piece == "flip" and at < len(file):
            file[at] ^= 1 << draw(st.integers(0, 7))
        elif piece == "end":
            del file[len(file) - length :]
    if draw(st.booleans()):  # a length that fits again, so that the header is looked into
        file[:8] = struct.pack("<Q", max(0, len(file) - len(BODY) - 8))
    return bytes(file)


def refused_or_same(file: bytes) -> None:
    try:
        artifact = read(file)
    except InvalidArtifact as error:
        forging.check_message(error.message)
    else:
        assert same(artifact, TRUE)


@settings(max_examples=1500)
@given(mutated_files())
def test_a_damaged_file_is_refused_or_the_same(file: bytes) -> None:
    refused_or_same(file)


def test_every_flipped_bit_is_noticed_or_without_effect() -> None:
    for at in range(len(TRUE_FILE)):
        file = bytearray(TRUE_FILE)
        file[at] ^= 1 << at % 8
        refused_or_same(bytes(file))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(file: bytes) -> None:
    refusal(file)
    refusal(framed(file, b""))
    refusal(framed(b"{" + file, b""))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.characters(categories=["Cs"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500)
@given(st.sampled_from(sorted(CARD)), json_values)
def test_a_forged_field_gives_a_model_or_a_refusal(field: str, value: object) -> None:
    file = with_card(CARD | {field: value})
    try:
        artifact = read(file)
    except InvalidArtifact as error:
        forging.check_message(error.message)
    else:
        assert read(write(artifact)).card.to_json() == artifact.card.to_json()
        artifact.network()
