"""Curves on both databases: every point once, spikes survive, what is not finite shows."""

from __future__ import annotations

import math

import pytest

from app.errors import NotFound
from app.jobs.values import Point
from tests.jobs.making import Place
from tests.jobs.test_runner_door import begun


def record(place: Place, values: list[float], name: str = "train_loss") -> str:
    job, claim = begun(place)
    points = [Point(name, step, step, value) for step, value in enumerate(values)]
    place.door.record(claim, job.run_id, points, None)
    return job.run_id


def test_a_spike_survives_the_buckets(place: Place) -> None:
    values = [1.0] * 2500
    values[1234] = 9.0
    run = record(place, values)
    (series,) = place.jobs.metrics(run, ["train_loss"], max_points=100)
    assert len(series.points) == 100
    assert sum(bucket.count for bucket in series.points) == 2500
    assert max(bucket.max or 0 for bucket in series.points) == 9.0
    assert (series.points[0].first_step, series.points[-1].step) == (0, 2499)
    steps = [bucket.step for bucket in series.points]
    assert steps == sorted(set(steps))
    (every,) = place.jobs.metrics(run, max_points=10**9)
    assert len(every.points) == 1000


def test_what_is_not_finite_is_told(place: Place) -> None:
    run = record(place, [1.0, math.nan, math.inf, -math.inf, 3.0])
    (series,) = place.jobs.metrics(run)
    assert [bucket.last for bucket in series.points] == [1.0, None, None, None, 3.0]
    assert [bucket.nonfinite for bucket in series.points] == [0, 1, 1, 1, 0]
    (one,) = place.jobs.metrics(run, max_points=1)[0].points
    assert (one.min, one.max, one.mean, one.last, one.nonfinite) == (1.0, 3.0, 2.0, 3.0, 3)


def test_a_point_written_again_replaces_the_first(place: Place) -> None:
    job, claim = begun(place)
    for value in (1.0, 2.0):
        place.door.record(claim, job.run_id, [Point("train_loss", 1, 0, value)], None)
    (series,) = place.jobs.metrics(job.run_id)
    assert [bucket.last for bucket in series.points] == [2.0]


def test_only_the_names_asked_for_in_order(place: Place) -> None:
    job, claim = begun(place)
    names = ["b", "a", "c"]
    place.door.record(claim, job.run_id, [Point(name, 1, 0, 1.0) for name in names], None)
    assert [series.name for series in place.jobs.metrics(job.run_id)] == ["a", "b", "c"]
    assert [series.name for series in place.jobs.metrics(job.run_id, ["c", "x"])] == ["c"]
    with pytest.raises(NotFound) as caught:
        place.jobs.metrics("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert caught.value.code == "run_not_found"
