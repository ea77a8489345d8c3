"""Our own e^x against the library's; sums and maxima whatever the length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.kernels.exponentials import exponentials, highest, total

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(numbers, st.sampled_from([1.0, 10.0, 0.25]))
def test_exponentials_are_those_of_the_library(values: list[float], factor: float) -> None:
    array, top = np.array([*values, -np.inf]), max(values)
    wanted = np.exp((array - top) * factor)
    wanted[wanted < 3.4e-308] = 0.0  # what is nearly nothing is nothing
    exponentials(array, len(array), top, factor)
    np.testing.assert_allclose(array, wanted, rtol=5e-16)


def test_exponentials_over_the_whole_range() -> None:
    array = -np.linspace(0, 707, 200_001)
    wanted = np.exp(array)
    exponentials(array, len(array), 0.0, 1.0)
    np.testing.assert_allclose(array, wanted, rtol=5e-16)
    assert array[0] == 1.0


def test_what_lies_beyond_the_count_is_left_alone() -> None:
    array = np.array([0.0, -1.0, 7.0])
    exponentials(array, 2, 0.0, 1.0)
    assert array[2] == 7.0


@given(numbers)
def test_sum_and_maximum(values: list[float]) -> None:
    array = np.array([*values, np.nan])
    assert highest(array, len(values)) == max(values)
    assert total(array, len(values)) == pytest.approx(sum(values), rel=1e-12, abs=1e-6)
