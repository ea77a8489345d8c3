"""JSON as it is sent: any value, on one line for every client."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.http.json_text import to_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_reads_back(value: Any) -> None:
    assert json.loads(to_json(value)) == value


@given(st.text(st.sampled_from('a"\\\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\u00e2é€'), max_size=20))
def test_a_text_with_any_line_end_stays_on_one_line(text: str) -> None:
    written = to_json({"text": text}).decode()
    assert written.splitlines() == [written]
    assert json.loads(written) == {"text": text}


def test_half_of_a_surrogate_pair_is_escaped() -> None:
    assert to_json({"text": "a\ud800"}) == b'{"text":"a\\ud800"}'


@dataclass
class Thing:
    value: int = 1


@pytest.mark.parametrize("value", [{1, 2}, Thing(), b"bytes", iter([1])])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        to_json({"value": value})


def test_numbers_that_json_lacks_are_null() -> None:
    assert to_json([math.nan, math.inf, -math.inf]) == b"[null,null,null]"
