"""Large answers are the JSON they would be at once, and hold nobody up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import Message

from app.engine.piece import NUMBER_BYTES
from app.errors import Overloaded, TooLarge
from app.web.http.answers import MOST_NUMBERS, AnswerRoom, Many, json_answer, json_pieces
from app.web.http.room import Reservation

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(values)
def test_the_pieces_are_the_json(value: Any) -> None:
    assert json.loads(b"".join(json_pieces(value))) == value


def test_long_lists_are_cut_and_whole() -> None:
    value = {"logprobs": [{"a": -float(n)} for n in range(1234)], "empty": [], "none": {}}
    assert json.loads(b"".join(json_pieces(value))) == value


async def sent(response: Response) -> tuple[bytes, int]:
    """The body of a response, and how often other work had its turn meanwhile."""
    pieces, turns, done = [], 0, asyncio.Event()

    async def send(message: Message) -> None:
        pieces.append(message.get("body", b""))

    async def receive() -> Message:
        await done.wait()
        return {"type": "http.disconnect"}

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.ensure_future(others())
    await response({"type": "http"}, receive, send)
    turning.cancel()
    assert max(map(len, pieces)) < 200_000
    return b"".join(pieces), turns


def reserved(room: AnswerRoom, numbers: int) -> Reservation:
    return room.reserve(numbers, "input")


def test_the_loop_goes_round_while_a_large_answer_is_made() -> None:
    room = AnswerRoom(256 << 20)
    built = {"data": Many([{"logprobs": Many(0.123456789 for _ in range(300_000))}], 1)}

    async def measured() -> tuple[bytes, int]:
        return await sent(
            await json_answer(lambda: built, 300_000, 300_000, reserved(room, 300_000))
        )

    body, turns = asyncio.run(measured())
    assert json.loads(body) == {"data": [{"logprobs": [0.123456789] * 300_000}]}
    assert turns > 3


@pytest.mark.parametrize("count", [10, 1000, 19_000, 30_000])
def test_small_and_large_answers_are_the_same_json(count: int) -> None:
    room = AnswerRoom(256 << 20)

    def build() -> dict[str, Any]:
        items = ({"n": n, "few": Many([n, n]), "none": [], "ü": "ü"} for n in range(count))
        return {"data": Many(items, 1)}

    async def made() -> bytes:
        return (await sent(await json_answer(build, count, count, reserved(room, count))))[0]

    body = asyncio.run(made())
    assert json.loads(body)["data"] == [
        {"n": n, "few": [n, n], "none": [], "ü": "ü"} for n in range(count)
    ]
    assert "ü".encode() in body
    assert reserved(room, MOST_NUMBERS)  # all of the memory is free again


def test_what_an_answer_may_not_hold_is_named() -> None:
    room = AnswerRoom(256 << 20)
    room.check(MOST_NUMBERS, "input")
    with pytest.raises(TooLarge, match="2,500,001") as refused:
        room.check(MOST_NUMBERS + 1, "input")
    assert (refused.value.code, refused.value.param) == ("answer_too_large", "input")


def test_all_answers_together_are_bounded_and_their_memory_comes_back() -> None:
    room = AnswerRoom(100_000 * NUMBER_BYTES)
    with pytest.raises(TooLarge):
        reserved(room, 100_001)
    first, second = reserved(room, 60_000), reserved(room, 40_000)
    with pytest.raises(Overloaded):
        reserved(room, 1)
    second.release()
    second.release()  # once more changes nothing
    handed = first.handed_on()
    first.release()
    with pytest.raises(Overloaded):
        reserved(room, 50_000)
    handed.release()
    reserved(room, 100_000)
