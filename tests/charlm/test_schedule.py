"""The rate as a function of the step, and what a training may be asked for."""

from __future__ import annotations

import math

import pytest

from app.charlm.schedule import Pace, TrainingConfig, with_plan
from app.errors import InvalidInput


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    config = TrainingConfig(max_steps=1000, learning_rate=1.0, warmup_steps=10)
    rates = [config.rate(step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert rates[1000] == 0
    assert rates[40] == config.rate(40, None), "what is not known yet is not needed yet"


def test_a_constant_rate_stays() -> None:
    config = TrainingConfig(max_steps=100, learning_rate=1.0, warmup_steps=0, schedule="constant")
    assert {config.rate(step, 100) for step in range(100)} == {1.0}


def test_the_plan_in_force_is_the_last_that_began() -> None:
    config = with_plan(with_plan(TrainingConfig(budget_seconds=1), 5, 100), 50, 80)
    assert [config.planned_steps(step) for step in (0, 5, 49, 50)] == [None, 100, 100, 80]


def test_a_resumed_training_looks_at_the_clock_once_it_knows_the_speed() -> None:
    pace = Pace(skipped=0)
    assert not pace.correction_due(500, 1000)
    for _ in range(5):
        pace.record(1.0, 10)
    assert pace.correction_due(500, 1000)
    assert not pace.correction_due(501, 1000), "what was passed meanwhile is not made up for"
    assert pace.correction_due(600, 1000)


def test_pace_plans_from_measured_steps() -> None:
    pace = Pace()
    assert not pace.is_known(10.0, 20.0)
    for seconds in (9.0, 9.0, 0.5, 0.5):
        pace.record(seconds, 100)
    assert pace.characters_per_second == 200
    assert pace.is_known(3.0, 1000.0)
    assert not pace.is_known(0.1, 1000.0)
    assert pace.fitting(4, 10.0) == 24
    assert pace.fitting(4, -1.0) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget_seconds", 0),
        ("budget_seconds", math.nan),
        ("budget_seconds", 1e12),
        ("max_epochs", 0),
        ("max_steps", -1),
        ("batch_size", 0),
        ("window", 10**9),
        ("optimizer", "lion"),
        ("learning_rate", 0),
        ("learning_rate", math.inf),
        ("schedule", "cosine"),
        ("clip_norm", 0),
        ("loss", "hinge"),
        ("patience", 0),
        ("seed", -1),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        TrainingConfig(**{"max_steps": 1, field: value})  # type: ignore[arg-type]
    assert caught.value.param == f"training.{field}"


def test_an_end_must_be_given() -> None:
    with pytest.raises(InvalidInput, match=r"Give training.budget_seconds"):
        TrainingConfig()
