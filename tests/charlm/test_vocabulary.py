"""Characters and ids, there and back, over all of Unicode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.vocabulary import BOUNDARY, UNKNOWN, Vocabulary
from tests.models import vocabulary_of

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_every_text_survives_the_way_there_and_back(text: str) -> None:
    vocabulary = vocabulary_of(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary) == 2 + len(set(text))


@given(ANY_TEXT, ANY_TEXT)
def test_widening_moves_no_id(old: str, new: str) -> None:
    vocabulary = vocabulary_of(old)
    wider = vocabulary.widen(new)
    assert np.array_equal(wider.encode(old), vocabulary.encode(old))
    assert wider.decode(wider.encode(old + new)) == old + new


def test_unknown_characters_become_the_unknown_symbol_and_are_named_once() -> None:
    vocabulary = Vocabulary("abc")
    assert vocabulary.encode("azbz唐").tolist() == [2, UNKNOWN, 3, UNKNOWN, UNKNOWN]
    assert vocabulary.unknown_characters("azbz唐") == "z唐"


def test_a_vocabulary_without_characters_knows_nothing() -> None:
    assert Vocabulary("").encode("ab").tolist() == [UNKNOWN, UNKNOWN]


def test_reserved_symbols_have_names_and_no_text() -> None:
    vocabulary = Vocabulary("ba")
    assert [vocabulary.symbol(i) for i in range(4)] == ["<unknown>", "<boundary>", "b", "a"]
    assert vocabulary.decode([BOUNDARY, 3, UNKNOWN, 2]) == "ab"


def test_a_character_twice_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        Vocabulary("aa")


@given(st.lists(st.text("abc汉X", max_size=30), max_size=9), st.sampled_from(["", "b" * 3000]))
def test_many_texts_are_encoded_as_one_by_one(texts: list[str], more: str) -> None:
    vocabulary = Vocabulary("abc汉")
    texts = [*texts, more]
    together = vocabulary.encode_each(texts)
    assert [ids.tolist() for ids in together] == [vocabulary.encode(t).tolist() for t in texts]
    assert all(ids.dtype == np.int32 for ids in together)


def test_no_texts_are_encoded_as_none() -> None:
    assert Vocabulary("ab").encode_each([]) == []


def test_each_id_has_its_text() -> None:
    vocabulary = Vocabulary("ab")
    assert vocabulary.decode_each(range(len(vocabulary))) == ["", "", "a", "b"]


def test_only_the_first_unknown_characters_of_a_long_text_are_looked_for() -> None:
    vocabulary = Vocabulary("abc")
    text = "abc" * 30_000 + "xyx" + "c" * 70_000 + "zw"
    assert vocabulary.unknown_characters(text) == "xyzw"
    assert vocabulary.unknown_characters(text, 3) == "xyz"
    assert vocabulary.unknown_characters(text, 2) == "xy"
