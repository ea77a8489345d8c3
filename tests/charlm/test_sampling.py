"""Drawing a symbol: the right distribution, the right truncations, repeatable numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.decoder import bias_row
from app.charlm.kernels.sampling import choose, likeliest, log_total, uniform
from app.charlm.sampling import Sampling
from app.errors import InvalidInput

LOGITS = np.array([9.0, 5.0, 1.0, 0.0, -1.0, 1.0], dtype=np.float32)


def draw(number: float = 0.5, *, boundary: bool = False, counts: Any = None, **given: Any) -> int:
    sampling = Sampling(**given)
    return int(
        choose(
            LOGITS,
            len(LOGITS),
            np.zeros(0, dtype=np.int32) if counts is None else np.array(counts, dtype=np.int32),
            bias_row(sampling, len(LOGITS)),
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.min_p,
            sampling.frequency_penalty,
            sampling.presence_penalty,
            boundary,
            number,
            np.empty(len(LOGITS)),
        )
    )


def shares(**given: Any) -> dict[int, float]:
    """How large a share of the numbers 0..1 draws each symbol."""
    numbers = (np.arange(4000) + 0.5) / 4000
    drawn = [draw(float(number), **given) for number in numbers]
    return {symbol: drawn.count(symbol) / len(drawn) for symbol in sorted(set(drawn))}


def softmax(logits: dict[int, float]) -> dict[int, Any]:
    total = sum(math.exp(x) for x in logits.values())
    return {v: pytest.approx(math.exp(x) / total, abs=1e-3) for v, x in logits.items()}


def test_symbols_are_drawn_as_likely_as_the_network_says_without_the_reserved() -> None:
    assert shares() == softmax({2: 1, 3: 0, 4: -1, 5: 1})


def test_the_boundary_is_drawn_where_a_record_may_end() -> None:
    assert shares(boundary=True) == softmax({1: 5, 2: 1, 3: 0, 4: -1, 5: 1})


def test_temperature_divides_the_logits() -> None:
    assert shares(temperature=2.0) == softmax({2: 0.5, 3: 0, 4: -0.5, 5: 0.5})


def test_temperature_zero_takes_the_likeliest_and_of_equals_the_lowest() -> None:
    assert shares(temperature=0.0) == {2: 1.0}


@pytest.mark.parametrize("temperature", [1e-320, 1e-9])
def test_a_temperature_too_low_to_divide_by_is_zero(temperature: float) -> None:
    assert draw(0.999, temperature=temperature) == draw(0.999, temperature=0.0)


def test_top_k_keeps_the_likeliest() -> None:
    assert shares(top_k=3) == softmax({2: 1, 3: 0, 5: 1})
    assert shares(top_k=100) == shares()


def test_top_p_keeps_the_smallest_set_that_holds_the_share() -> None:
    # e / (2e + 1 + 1/e) = 0.399 each for the likeliest two.
    assert shares(top_p=0.39) == {2: 1.0}
    assert shares(top_p=0.5) == softmax({2: 1, 5: 1})
    assert shares(top_p=0.0) == {2: 1.0}


def test_min_p_keeps_what_is_likely_beside_the_likeliest() -> None:
    assert shares(min_p=0.3) == softmax({2: 1, 3: 0, 5: 1})
    assert shares(min_p=1.0) == softmax({2: 1, 5: 1})


def test_biases_and_penalties_move_logits() -> None:
    assert shares(logit_bias=((2, -100.0), (4, 2.0))) == softmax({3: 0, 4: 1, 5: 1})
    counts = [0, 0, 2, 0, 1, 0]
    assert shares(counts=counts, frequency_penalty=0.5, presence_penalty=0.25) == softmax(
        {2: 1 - 1.25, 3: 0, 4: -1 - 0.75, 5: 1}
    )
    assert Sampling(presence_penalty=1).counts_matter
    assert not Sampling().counts_matter


def test_a_number_close_to_one_draws_the_last() -> None:
    assert draw(1 - 2**-53) == 5
    assert draw(0.0) == 2


def test_the_total_is_exact_and_does_not_overflow() -> None:
    logits = np.array([3e4, 3e4, -3e4], dtype=np.float32)
    assert log_total(logits, 3, np.empty(3)) == pytest.approx(3e4 + math.log(2), abs=1e-9)


def reference(*parts: int) -> float:
    """The same numbers from Python's own integers."""
    mask, state = 2**64 - 1, 0
    for part in parts:
        state = ((state ^ part) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return (state >> 11) * 2.0**-53


@given(st.integers(0, 2**63 - 1), st.integers(0, 127), st.integers(0, 100_000))
def test_a_random_number_is_a_function_of_its_place(seed: int, choice: int, position: int) -> None:
    assert uniform(seed, choice, position) == reference(seed, choice, position)


def test_random_numbers_are_uniform_and_unrelated() -> None:
    numbers = np.array([[uniform(7, c, p) for p in range(1000)] for c in range(20)])
    assert abs(numbers.mean() - 0.5) < 0.01
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] / 2000 - 1).max() < 0.1
    assert np.abs(np.corrcoef(numbers) - np.eye(20)).max() < 0.15


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2),
        ("frequency_penalty", 3),
        ("presence_penalty", -3),
        ("seed", -1),
        ("logit_bias", ((0, math.inf),)),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Sampling(**{field: value})  # type: ignore[arg-type]
    assert caught.value.param == field


def test_a_bias_for_a_symbol_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="names symbol 99, but the model's symbols are 0 to 5"):
        bias_row(Sampling(logit_bias=((99, 1.0),)), 6)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(0, 14))
def test_the_likeliest_come_in_order_and_of_equals_the_lowest_id(values: list[int], n: int) -> None:
    logits = np.array(values, dtype=np.float32)
    ids, logprobs = np.zeros(n, dtype=np.int32), np.zeros(n)
    total = log_total(logits, len(values), np.empty(len(values)))
    likeliest(logits, len(values), total, ids, logprobs)
    wanted = sorted(range(len(values)), key=lambda v: (-values[v], v))[:n]
    assert ids.tolist() == wanted + [-1] * (n - len(wanted))
    assert logprobs[: len(wanted)].tolist() == [np.float64(logits[v]) - total for v in wanted]
