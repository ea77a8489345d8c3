"""Files that pretend to be models: refused with a sentence, before memory is spent on them."""

from __future__ import annotations

import json
import resource
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.charlm.network_config import NetworkConfig
from app.errors import InvalidArtifact
from app.store.artifact import read, write
from app.store.card import WeightDtype
from app.store.header import MAX_HEADER, MAX_TENSORS
from tests.models import tiny_artifact
from tests.store import forging
from tests.store.forging import (
    TRUE_FILE,
    Fields,
    framed,
    refusal,
    taken_apart,
    with_body,
    with_card,
    with_header,
)
from tests.store.test_artifact import same

HEADER, CARD, BODY = taken_apart()
MEBIBYTE = 1 << 20


@contextmanager
def little_memory(most: int = 4 * MEBIBYTE) -> Iterator[None]:
    """Fails if Python's own allocations, the weights' among them, ever take more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def entry(name: str, **changes: object) -> bytes:
    return with_header(lambda header: header[name].update(changes))


def moved(name: str, by_begin: int, by_end: int) -> bytes:
    begin, end = HEADER[name]["data_offsets"]
    return entry(name, data_offsets=[begin + by_begin, end + by_end])


def renamed(old: str, new: str) -> bytes:
    fields = {new if name == old else name: value for name, value in HEADER.items()}
    return framed(fields, BODY)


def in_another_order() -> bytes:
    names = list(HEADER)
    names[1], names[2] = names[2], names[1]
    return framed({name: HEADER[name] for name in names}, BODY)


def crowded() -> bytes:
    more = {f"more{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(64)}
    return framed(HEADER | more, BODY)


def twice(key: str) -> bytes:
    pair = json.dumps({key: HEADER[key]}).encode()
    return framed(pair[:-1] + b"," + json.dumps(HEADER).encode()[1:], BODY)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "shorter than 8 bytes"),
    "seven bytes": (lambda: b"\0" * 7, "shorter than 8 bytes"),
    "eight bytes": (lambda: b"\0" * 8, "not a JSON object"),
    "header ends early": (lambda: TRUE_FILE[:100], "ends inside its header"),
    "header one too long": (lambda: struct.pack("<Q", 1000) + b"{" * 999, "inside its header"),
    "header of 2^64-1": (lambda: b"\xff" * 8 + TRUE_FILE[8:], "longer than 1,000,000"),
    "header of 2^63": (lambda: struct.pack("<Q", 2**63) + TRUE_FILE[8:], "longer than 1,000,000"),
    "header over a megabyte": (lambda: framed(b"{" + b" " * MAX_HEADER, b""), "longer than"),
    "length too small": (lambda: struct.pack("<Q", 50) + TRUE_FILE[8:], "not JSON"),
    "length too great": (
        lambda: struct.pack("<Q", len(TRUE_FILE) - len(BODY)) + TRUE_FILE[8:],
        "not JSON",
    ),
    "no JSON": (lambda: framed(b"{not json}", BODY), "not JSON"),
    "an array": (lambda: framed([HEADER], BODY), "not a JSON object"),
    "UTF-16": (lambda: framed('{"a": 1}'.encode("utf-16"), BODY), "not a JSON object"),
    "not UTF-8": (lambda: framed(b'{"\xff": 1}', BODY), "not JSON"),
    "nested": (lambda: framed(b'{"a":' * 190_000, BODY), "not JSON"),
    "a number of 100,000 digits": (lambda: framed(b'{"a":' + b"9" * 100_000 + b"}", b""), "JSON"),
    "a tensor twice": (lambda: twice("output.bias"), "names something twice"),
    "two cards": (lambda: twice("__metadata__"), "names something twice"),
    "no card": (lambda: with_header(lambda h: h.pop("__metadata__")), "no Charloom card"),
    "a card that is no text": (
        lambda: with_header(lambda h: h["__metadata__"].update(charloom=CARD)),
        "no Charloom card",
    ),
    "metadata that is none": (
        lambda: with_header(lambda h: h.update(__metadata__=[1])),
        "no Charloom card",
    ),
    "more metadata": (
        lambda: with_header(lambda h: h["__metadata__"].update(format="pt")),
        "more than a card",
    ),
    "another card": (
        lambda: with_header(
            lambda h: h["__metadata__"].update(
                charloom=h["__metadata__"]["charloom"].replace('"abc"', '"abd"')
            )
        ),
        "card is not the one that was written",
    ),
    "a wrong name": (lambda: renamed("output.bias", "output.bias2"), "tensors are not those"),
    "a missing tensor": (lambda: with_header(lambda h: h.pop("output.bias")), "are not those"),
    "one tensor more": (
        lambda: with_header(lambda h: h.update(more=h["output.bias"])),
        "are not those",
    ),
    "another order": (in_another_order, "are not those"),
    "65 tensors": (crowded, f"more than {MAX_TENSORS} tensors"),
    "another shape": (lambda: entry("output.weight", shape=[4, 5]), "tensor output.weight has"),
    "a flat shape": (lambda: entry("output.weight", shape=[20]), "tensor output.weight has"),
    "a huge shape": (lambda: entry("output.weight", shape=[2**62, 2**62]), "has another"),
    "a negative shape": (lambda: entry("output.weight", shape=[-5, -4]), "has another"),
    "another dtype": (lambda: entry("output.bias", dtype="I32"), "tensor output.bias has"),
    "a dtype of code": (lambda: entry("output.bias", dtype="__import__"), "output.bias has"),
    "overlapping": (lambda: moved("output.bias", -4, -4), "has another type, shape or offset"),
    "a gap": (lambda: moved("output.bias", 4, 4), "has another type, shape or offset"),
    "beyond the end": (lambda: moved("output.bias", 0, 2**40), "has another"),
    "backwards": (lambda: moved("output.bias", 40, -40), "has another"),
    "a fraction as offset": (lambda: entry("output.bias", data_offsets=[0.0, 2.5]), "malformed"),
    "a truth as offset": (lambda: entry("output.bias", data_offsets=[False, True]), "malformed"),
    "three offsets": (lambda: entry("output.bias", data_offsets=[0, 1, 2]), "malformed"),
    "offsets of 5,000 digits": (
        lambda: framed(b'{"a":[' + b"9" * 5000 + b"]}", BODY),
        "not JSON",
    ),
    "an entry that is a list": (
        lambda: with_header(lambda h: h.update({"output.bias": [1, 2]})),
        "malformed",
    ),
    "an entry that is nothing": (
        lambda: with_header(lambda h: h.update({"\x1b[31m\u202e\ud800": None})),
        "malformed",
    ),
    "a byte too few": (lambda: TRUE_FILE[:-1], "its size is not the one"),
    "a byte too many": (lambda: TRUE_FILE + b"\0", "its size is not the one"),
    "two files": (lambda: TRUE_FILE * 2, "its size is not the one"),
    "no tensors": (lambda: framed(HEADER, b""), "its size is not the one"),
    "another weight": (
        lambda: framed(HEADER, BODY[:-1] + bytes([BODY[-1] ^ 1])),
        "the digest differs",
    ),
    "a card in a card twice": (
        lambda: with_card('{"seed":1,' + HEADER["__metadata__"]["charloom"][1:]),
        "names something twice",
    ),
    "a nested card": (lambda: with_card('{"a":' + "[" * 300_000), "card is not JSON"),
    "a card that is a list": (lambda: with_card("[]"), "card is not a JSON object"),
    "an empty card": (lambda: with_card({}), "card is wrong"),
    "a raw surrogate": (lambda: with_card('{"cell":"\ud800"}'), "card is"),
    "an escaped surrogate": (lambda: with_card(CARD | {"vocabulary": "ab\ud800"}), "card is"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(case: str) -> None:
    build, reason = HOSTILE[case]
    file = build()
    with little_memory(16 * MEBIBYTE):
        assert reason in refusal(file)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2}, "newer Charloom"),
        ({"format_version": None}, "another format version"),
        ({"vocabulary": "abcd"}, "symbols is not the size of the vocabulary"),
        ({"vocabulary": "ab"}, "symbols is not the size of the vocabulary"),
        ({"vocabulary": "aba"}, "a character twice"),
        ({"symbols": 6, "vocabulary": "abcd"}, "parameters is not the number"),
        ({"symbols": 2**70}, "symbols"),
        ({"parameters": 1}, "parameters is not the number"),
        ({"parameters": -1}, "parameters"),
        ({"hidden_size": 5}, "parameters is not the number"),
        ({"hidden_size": 0}, "network.hidden_size must be"),
        ({"hidden_size": 10**6}, "network.hidden_size must be"),
        ({"layers": -1}, "network.layers must be"),
        ({"layers": 10**30}, "layers"),
        ({"cell": "transformer"}, "cell"),
        ({"tied": True}, "network.tied must be"),
        ({"dropout": 1.0}, "network.dropout must be"),
        ({"precision": "int4"}, "precision"),
        ({"precision": "float16"}, "has another type, shape or offset"),
        ({"corpus_format": "html"}, "corpus_format"),
        ({"calibration": [2.0, 1.0]}, "the calibration does not ascend"),
        ({"calibration": [1.0]}, "calibration"),
        ({"calibration": [0.0] * 10_002}, "calibration"),
        ({"calibration": [0.0, float("nan")]}, "calibration"),
        ({"weights_sha256": "A" * 64}, "weights_sha256"),
        ({"weights_sha256": "a" * 64}, "the digest differs"),
        ({"run_id": "../../../../etc/passwd"}, "run_id"),
        ({"created_at": -1}, "created_at"),
        ({"created_at": 1e300}, "created_at"),
        ({"seed": 2**64}, "seed"),
        ({"verbatim_copy_rate": 1.5}, "verbatim_copy_rate"),
        ({"lineage": {"corpus": "two\nlines"}}, "lineage.corpus"),
        ({"lineage": {"corpus": "ends\n"}}, "lineage.corpus"),
        ({"lineage": {"command": "\x1b]0;owned\x07"}}, "lineage.command"),
        ({"lineage": {"corpus": "a" * 1001}}, "lineage.corpus"),
        ({"lineage": {"parameters": {"x": [1]}}}, "lineage.parameters"),
        ({"lineage": {"parameters": {"x": float("inf")}}}, "lineage.parameters"),
        ({"libraries": {"\x1b[31m\u202e\n": "1"}}, "libraries"),
        ({"libraries": {"torch": {"version": 1}}}, "libraries"),
        ({"validation": {"nats": float("nan")}}, "validation"),
    ],
    ids=lambda value: str(value)[:60].encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_card_that_contradicts_itself_is_refused(changes: Fields, reason: str) -> None:
    assert reason in refusal(with_card(CARD | changes))


@pytest.mark.parametrize("field", [name for name, default in CARD.items() if name != "seed"])
def test_a_field_of_the_wrong_kind_is_refused(field: str) -> None:
    wrong: object = [None] if field in ("libraries", "lineage") else {"a": 1}
    refusal(with_card(CARD | {field: wrong}))


def test_a_field_that_is_not_known_yet_is_passed_over() -> None:
    assert same(read(with_card(CARD | {"colour": ["blue"]})), tiny_artifact())


def test_a_card_cannot_say_what_its_file_is() -> None:
    found = read(with_card(CARD | {"sha256": "0" * 64, "size_bytes": 3})).card
    assert found.sha256 != "0" * 64
    assert found.size_bytes != 3


def test_the_largest_header_is_read() -> None:
    raw = TRUE_FILE[8 : len(TRUE_FILE) - len(BODY)].ljust(MAX_HEADER)
    assert same(read(framed(raw, BODY)), tiny_artifact())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, len(BODY) // 4 - 1])
def test_a_weight_that_is_no_number_is_refused(value: float, place: int) -> None:
    body = bytearray(BODY)
    struct.pack_into("<f", body, 4 * place, value)
    assert "a weight is not a finite number" in refusal(with_body(bytes(body)))


@pytest.mark.parametrize(
    ("weight_dtype", "infinity"), [("float16", b"\x00\x7c"), ("bfloat16", b"\x80\x7f")]
)
def test_a_short_weight_that_is_no_number_is_refused(
    weight_dtype: WeightDtype, infinity: bytes
) -> None:
    header, card, body = taken_apart(write(tiny_artifact(weight_dtype=weight_dtype)))
    forged = with_card(
        card | {"weights_sha256": forging.sha256(infinity + body[2:])},
        infinity + body[2:],
        header,
    )
    assert "a weight is not a finite number" in refusal(forged)


def giant(config: NetworkConfig) -> tuple[Fields, Fields, int]:
    """A header and a card, at one with each other, of a network that is not there; its bytes."""
    shapes = config.weight_shapes(5)
    header, begin = dict[str, Any](), 0
    for name, shape in shapes.items():
        end = begin + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    card = CARD | {
        "cell": config.cell,
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "embedding_size": config.embedding_size,
        "parameters": config.parameters(5),
    }
    return header, card, begin


def test_a_giant_that_is_not_there_costs_nothing() -> None:
    header, card, size = giant(
        NetworkConfig(cell="lstm", layers=15, hidden_size=16384, embedding_size=16384)
    )
    assert size > 100 << 30
    file = with_card(card, b"\0" * 100, header)
    with little_memory():
        assert "its size is not the one that its card describes" in refusal(file)


def test_a_file_of_holes_that_needs_more_memory_than_there_is(tmp_path: Path) -> None:
    header, card, size = giant(NetworkConfig(cell="lstm", hidden_size=16384, embedding_size=1))
    path = tmp_path / "holes.safetensors"
    start = with_card(card, b"", header)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)  # four gigabytes that take no place on the disk
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    try:
        with path.open("rb") as stream, pytest.raises(InvalidArtifact, match="bytes of memory"):
            read(stream)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
