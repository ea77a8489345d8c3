"""What a run wrote: kept by step, cut when training resumes before it, read in pages."""

from __future__ import annotations

import pytest

from app.errors import NotFound
from app.jobs.values import Order, Sample
from tests.jobs.making import Place
from tests.jobs.test_runner_door import begun


def taken(*steps: int, text: str = "abc") -> list[Sample]:
    return [Sample(step, 1000 * step, f"{text} {step}") for step in steps]


def steps_of(place: Place, run: str) -> list[int]:
    return [each.step for each in place.jobs.samples(run, limit=100).items]


def test_samples_of_a_resumed_run_have_no_gap_and_no_repetition(place: Place) -> None:
    job, claim = begun(place)
    place.door.record(claim, job.run_id, [], None, taken(10, 20, 30))
    place.door.take_up(claim, job.run_id, 20, {})
    assert steps_of(place, job.run_id) == [10, 20]
    place.door.record(claim, job.run_id, [], None, taken(20, 30, text="again"))
    found = place.jobs.samples(job.run_id).items
    assert [each.text for each in found] == ["abc 10", "again 20", "again 30"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages(place: Place, order: Order) -> None:
    job, claim = begun(place)
    place.door.record(claim, job.run_id, [], None, taken(*range(0, 70, 10)))
    found: list[int] = []
    more = True
    while more:
        page = place.jobs.samples(
            job.run_id, after=found[-1] if found else None, limit=3, order=order
        )
        found += [each.step for each in page.items]
        more = page.has_more
    assert found == sorted(range(0, 70, 10), reverse=order == "desc")


def test_samples_of_no_run(place: Place) -> None:
    with pytest.raises(NotFound):
        place.jobs.samples("01J" + "0" * 23)
