"""Large answers are the JSON they would be at once, and hold nobody up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import TooLarge
from app.web.http.answers import MOST_NUMBERS, check_numbers, json_answer, json_pieces

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(values)
def test_the_pieces_are_the_json(value: Any) -> None:
    assert json.loads("".join(json_pieces(value))) == value


def test_long_lists_are_cut_and_whole() -> None:
    value = {"logprobs": [{"a": -float(n)} for n in range(1234)], "empty": [], "none": {}}
    assert json.loads("".join(json_pieces(value))) == value


def test_the_loop_goes_round_while_a_large_answer_is_made() -> None:
    built = {"data": [{"logprobs": [0.123456789] * 300_000}]}

    async def measured() -> int:
        answer = asyncio.ensure_future(json_answer(lambda: built, 300_000))
        turns = 0
        while not answer.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert json.loads(bytes((await answer).body)) == built
        return turns

    assert asyncio.run(measured()) > 3


def test_what_an_answer_may_not_hold_is_named() -> None:
    check_numbers(MOST_NUMBERS, "input")
    with pytest.raises(TooLarge, match="2,500,001") as refused:
        check_numbers(MOST_NUMBERS + 1, "input")
    assert (refused.value.code, refused.value.param) == ("answer_too_large", "input")
