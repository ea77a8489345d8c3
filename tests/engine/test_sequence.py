"""Stop strings across pieces, and what of a text is kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.engine.piece import FinishReason, Piece, Tops
from app.engine.sequence import Request, Sequence, StopRule

PROMPT = np.array([1, 2], dtype=np.int32)
symbols = st.lists(st.integers(2, 4), min_size=1, max_size=30)


def sequence(stops: list[list[int]], most: int = 1000) -> Sequence:
    made = Sequence(Request((PROMPT,), max_symbols=most, stop=StopRule(stops)), PROMPT, 0)
    made.seen = made.goal
    return made


@given(symbols, st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=3), max_size=3),
       st.lists(st.integers(1, 5), min_size=1))  # fmt: skip
def test_a_text_ends_before_its_first_stop_however_it_is_cut(
    text: list[int], stops: list[list[int]], cuts: list[int]
) -> None:
    one = sequence(stops, len(text))
    whole, place = Piece(0), 0
    while whole.finish is None:
        count = min(cuts[place % len(cuts)], len(text) - len(one.written))
        new = text[len(one.written) : len(one.written) + count]
        logprobs = [-float(len(one.written) + n) for n in range(count)]
        if piece := one.accept(new, logprobs, Tops(1, new, [0.0] * len(new))):
            whole.join(piece)
        assert len(one._unsent_logprobs) == len(one.written) - one.emitted
        place += 1
    ends = [
        (i + len(stop), i)
        for stop in stops
        for i in range(len(text))
        if text[i : i + len(stop)] == stop
    ]
    end = min(ends)[1] if ends else len(text)
    # A stop completed by a later symbol of the same cut may not win over an earlier one.
    assert list(whole.ids) == text[:end]
    assert list(whole.logprobs) == [-float(n) for n in range(end)]
    assert [top[0][0] for top in whole.tops] == text[:end]
    assert whole.finish is (FinishReason.STOP if ends else FinishReason.LENGTH)


def test_logprobs_that_were_sent_are_not_kept() -> None:
    """A hundred thousand symbols with twenty alternatives each would be a gigabyte."""
    one = sequence([], most=10**6)
    for _ in range(50):
        assert one.accept([2] * 100, [-1.0] * 100, Tops(1, [2] * 100, [-1.0] * 100))
    assert not one._unsent_logprobs
    assert not one._unsent_tops
