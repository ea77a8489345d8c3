"""How many steps fit into a slice of time."""

from __future__ import annotations

import pytest

from app.engine.step_times import StepTimes


def test_steps_follow_what_steps_cost() -> None:
    pace = StepTimes()
    assert pace.steps(1, 0.01) >= 1
    pace.record(8, 10, 0.01)
    assert pace.steps(8, 0.0101) == 10
    assert pace.steps(9, 0.0101) == 10
    assert pace.steps(16, 0.0101) == 5  # at most in proportion
    assert pace.steps(1, 0.0101) == 10
    assert pace.steps(8, 0.0) == 1


def test_a_single_slow_call_is_believed_little_and_lasting_slowness_soon() -> None:
    pace = StepTimes()
    pace.record(8, 10, 0.01)
    pace.record(8, 10, 1.0)
    assert pace.steps(8, 0.01) >= 6
    for _ in range(30):
        pace.record(8, 10, 0.1)
    assert pace.steps(8, 0.0101) == 1
    for _ in range(60):
        pace.record(8, 10, 0.01)
    assert pace.steps(8, 0.0102) == 10


def test_a_call_of_one_step_tells_little_once_something_is_known() -> None:
    pace = StepTimes()
    pace.record(8, 1, 0.002)
    assert pace.steps(8, 0.0101) == 5
    pace.record(8, 1, 5.0)
    assert pace.steps(8, 0.0101) == 5
    for _ in range(30):  # but one that was very slow at first is not held for the truth
        pace.record(8, 1, 0.001)
    assert pace.steps(8, 0.0101) >= 9


@pytest.mark.parametrize("rows", [1, 100])
def test_a_clock_that_stands_still_gives_no_endless_tick(rows: int) -> None:
    pace = StepTimes()
    pace.record(rows, 10, 0.0)
    assert pace.steps(rows, 0.006) <= 6000
