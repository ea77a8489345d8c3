"""What is chosen from a corpus, a budget and a speed."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.cells import Cell
from app.charlm.corpus.format import CorpusFormat
from app.charlm.sizing import Choice, CorpusFacts, choose
from app.charlm.speed import measure_speed

SPEED = 1.6e11  # two cores


def text(characters: int, symbols: int = 67) -> CorpusFacts:
    return CorpusFacts("text", characters, symbols, 40.0, characters)


def size(choice: Choice) -> int:
    return choice.network.hidden_size


def test_a_play_in_three_minutes() -> None:
    choice = choose(text(1_000_000), 180, SPEED)
    assert (choice.network.cell, choice.network.layers, size(choice)) == ("lstm", 1, 512)
    assert (choice.training.batch_size, choice.training.window) == (16, 100)
    assert choice.network.dropout == 0.1
    assert ("layers", "hidden_size") in [each.fields for each in choice.chosen]


def test_names_in_three_minutes() -> None:
    names = CorpusFacts("lines", 215_000, 28, 7.2, 11)
    choice = choose(names, 180, SPEED)
    assert choice.training.batch_size == 64
    assert choice.training.window == 11
    assert choice.network.dropout >= 0.2


def test_more_of_anything_never_means_a_smaller_network() -> None:
    for facts in (text(10_000), text(1_000_000), text(30_000_000), text(400_000, 5_500)):
        sizes = [size(choose(facts, budget, SPEED)) for budget in (1, 10, 60, 180, 600, 3600)]
        assert sizes == sorted(sizes)
    sizes = [size(choose(text(n), 180, SPEED)) for n in (1_000, 10_000, 100_000, 10**7)]
    assert sizes == sorted(sizes)
    assert size(choose(text(10**9), 10**6, SPEED)) == 2048


def test_small_texts_are_not_read_for_ever() -> None:
    choice = choose(text(10_000), 600, SPEED)
    assert choice.passes == 60
    assert choice.training.max_epochs == 60
    assert choice.network.dropout == 0.5
    assert "corpus" in choice.chosen[0].reason


def test_large_texts_take_no_dropout_and_more_rows() -> None:
    choice = choose(text(30_000_000), 180, SPEED)
    assert choice.network.dropout == 0
    assert choose(text(10**9), 36_000, SPEED * 100).training.batch_size == 64
    assert choose(text(10**9), 36_000, SPEED * 100).training.learning_rate < 0.004


@given(
    st.sampled_from(["rnn", "lstm", "gru"]),
    st.integers(20, 10**9),
    st.integers(3, 20_000),
    st.floats(0.1, 1e6),
    st.floats(1e8, 1e15),
    st.floats(1, 1e6),
)
def test_every_choice_is_valid(
    cell: Cell, characters: int, symbols: int, budget: float, speed: float, length: float
) -> None:
    forms: tuple[CorpusFormat, ...] = ("text", "lines")
    for form in forms:
        facts = CorpusFacts(form, characters, symbols, length, int(length) + 1)
        choice = choose(facts, budget, speed, cell=cell, seed=3)
        assert choice.network.cell == cell
        assert choice.training.seed == 3
        assert len(choice.chosen) == 5


def test_the_speed_is_that_of_the_clock() -> None:
    readings = itertools.count()
    slow = measure_speed(lambda: next(readings) * 0.6, torch.device("cpu"))
    assert slow == pytest.approx(3 * 16 * 64 * 6 * (4 * 384 * (64 + 384) + 64 * 384) / 2.4, rel=0.5)
