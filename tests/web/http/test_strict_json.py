"""JSON is read strictly, and what would be expensive to read is refused before it is read."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput, TooLarge
from app.web.http.strict_json import Most, parse_json

MANY = 10_000

texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['"', "\\", '\\"', "\\\\", '",[{:,', "\\u0041", "[" * 3000, "," * 3000, ":" * 3000, "1" * 3000]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False,
    allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_what_json_writes_is_read(value: object, escaped: bool, indent: int | None) -> None:
    """Whatever stands in strings counts as nothing, however it is written."""
    raw = json.dumps([value, "x" * 3000], ensure_ascii=escaped, indent=indent).encode()
    assert parse_json(raw, 1000) == [value, "x" * 3000]


@pytest.mark.parametrize("count", [1000, 1001, 5000])
def test_values_are_counted(count: int) -> None:
    """The list itself is one."""
    numbers = list(range(count))
    raw = json.dumps(numbers).encode()
    assert parse_json(raw, len(numbers) + 1) == numbers
    with pytest.raises(TooLarge, match="values") as caught:
        parse_json(raw, len(numbers))
    assert caught.value.code == "body_too_large"


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        (b"1,", "body_too_large"),
        (b"true,", "body_too_large"),
        (b'"",', "body_too_large"),
        (rb'"\\","\"",', "body_too_large"),
        (b"[],", "invalid_json"),
        (b"{},", "invalid_json"),
        (b"[", "invalid_json"),
        (b'{"a":', "body_too_large"),
        (b"9" * 4000 + b",", "invalid_json"),
        (b"1." + b"9" * 4000 + b",", "invalid_json"),
        (b"-", "invalid_json"),
        (b",", "body_too_large"),
        (b'"', "body_too_large"),
        (b"\xff", "invalid_json"),
    ],
)  # fmt: skip
def test_what_is_refused_costs_no_more_memory_than_it_is_large(unit: bytes, code: str) -> None:
    raw = b"[" + unit * ((4 << 20) // len(unit)) + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as caught:
            parse_json(raw, MANY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    assert peak < 6 * len(raw)


def test_keys_and_fractions_are_bounded() -> None:
    """They cost more than other values, so that fewer are allowed where many values are."""
    keys = json.dumps({str(place): 0 for place in range(33_000)}).encode()
    with pytest.raises(TooLarge, match="keys"):
        parse_json(keys, 1_000_000)
    for number in (b"0.1,", b"1e5,", b"1E5,"):
        with pytest.raises(TooLarge, match="fractions"):
            parse_json(b"[" + number * 65_000 + b"1]", 1_000_000)
    assert len(parse_json(b"[" + b"true,false," * 65_000 + b"1]", 1_000_000)) == 130_001


@pytest.mark.parametrize("inner", ["1", r'"\ud83d\ude00"'])
@pytest.mark.parametrize("depth", [10, 1500, 1999])
def test_what_is_nested_too_deeply_says_so(depth: int, inner: str) -> None:
    """How deep that is depends on Python; what it is not is our mistake."""
    raw = ("[" * depth + inner + "]" * depth).encode()
    said = None
    try:
        value = parse_json(raw, MANY)
    except InvalidInput as error:
        said = (error.code, error.message)
    if said is None:
        assert isinstance(value, list)
    else:
        assert depth > 900
        assert said == ("invalid_json", "The body is nested too deeply.")


def test_a_key_twice_is_named_and_a_text_may_begin_with_a_mark() -> None:
    with pytest.raises(InvalidInput, match="'a' twice"):
        parse_json(b'{"b": 1, "a": 1, "a": 2}', 10)
    assert parse_json("\ufeff[1]".encode(), 10) == [1]


def test_a_size_is_said_in_words() -> None:
    assert str(Most(1 << 20, 1_000)) == "1,024 KiB and 1,000 values"
