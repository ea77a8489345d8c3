"""The queue on both databases: each job claimed once, moved as asked, never from an end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import insert, literal, select, text, update

from app.database.job_states import FINAL, LEASED
from app.database.job_tables import JobRow, RunRow
from app.database.tables import json_type
from app.errors import Conflict, NotFound
from app.jobs.queue import Queue, next_due
from app.jobs.states import CANCEL, PAUSE, RESUME, JobState
from app.jobs.times import Times
from app.jobs.values import Claim
from tests.jobs.making import Place


def put(place: Place, job_id: str, state: JobState) -> None:
    """Write a state as no code would, with what the constraints ask for."""
    values: dict[str, Any] = {"state": state, "lease_expires_at": None}
    if state in LEASED:
        values["lease_expires_at"] = 2**50
    if state is JobState.SUCCEEDED:
        values["model_version"] = "words@1"
    if state is JobState.FAILED:
        values["error_code"] = "failed"
    with place.database.session() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))


def test_the_most_urgent_first_then_in_order(place: Place) -> None:
    ids = [place.submitted(priority=priority).id for priority in (0, 5, 0, 5, -1)]
    claimed = []
    while claim := place.queue.claim("me", "local"):
        claimed.append(claim.job_id)
    assert claimed == [ids[1], ids[3], ids[0], ids[2], ids[4]]
    assert {place.jobs.get(each).state for each in ids} == {JobState.STARTING}


def test_four_claimers_claim_every_job_once(place: Place) -> None:
    """Fails on PostgreSQL without both the outer guard on ``state`` and SKIP LOCKED."""
    first = place.submitted()
    with place.database.session() as session:
        row = session.get_one(JobRow, first.id)
        names = [column.name for column in JobRow.__table__.columns]
        fields = {name: getattr(row, name) for name in names}
        for number in range(99):
            session.add(JobRow(**fields | {"id": f"{number:026d}"}))
    claims: list[Claim] = []

    def claim_all() -> None:
        queue = Queue(place.database)
        while claim := queue.claim("me", "local"):
            claims.append(claim)

    threads = [threading.Thread(target=claim_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 100
    assert len({claim.job_id for claim in claims}) == 100
    assert {claim.token for claim in claims} == {1}


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize(
    ("verb", "table"), [("cancel", CANCEL), ("pause", PAUSE), ("resume", RESUME)]
)
def test_every_wish_in_every_state(
    sqlite_place: Place, state: JobState, verb: str, table: dict[JobState, JobState]
) -> None:
    place = sqlite_place
    job = place.submitted()
    put(place, job.id, state)
    ask = getattr(place.jobs, verb)
    after = table.get(state)
    if after is None:
        with pytest.raises(Conflict, match=f"is {state}") as caught:
            ask(job.id)
        assert caught.value.code == "job_state"
        assert place.jobs.get(job.id).state == state
        return
    assert ask(job.id).state == after
    seen = place.events(job)
    again = ask(job.id)
    assert again.state == after
    assert place.events(job) == seen
    assert again.is_final == (again.finished_at is not None) or state in FINAL


def test_a_cancelled_job_is_never_claimed(place: Place) -> None:
    job = place.submitted()
    place.jobs.cancel(job.id)
    assert place.queue.claim("me", "local") is None
    assert not place.queue.is_due()


def test_paused_in_the_queue_and_resumed(place: Place) -> None:
    first, second = place.submitted(), place.submitted()
    place.jobs.pause(first.id)
    claim = place.queue.claim("me", "local")
    assert claim is not None
    assert claim.job_id == second.id
    assert place.queue.claim("me", "local") is None
    place.jobs.resume(first.id)
    claim = place.queue.claim("me", "local")
    assert claim is not None
    assert claim.job_id == first.id


def test_no_such_job(place: Place) -> None:
    for ask in (place.jobs.get, place.jobs.cancel, place.jobs.delete, place.jobs.events):
        for job_id in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "", "\0", "é", "\ud800", "x" * 1000):
            with pytest.raises(NotFound) as caught:
                ask(job_id)
            assert caught.value.code == "job_not_found"
    assert place.jobs.list(model="\0").items == []
    assert place.jobs.list(after="\0").items == []


def test_a_key_makes_one_job(place: Place) -> None:
    first = place.jobs.submit(place.spec(), idempotency_key="once")
    assert place.jobs.submit(place.spec(), idempotency_key="once") == first
    assert place.jobs.submit(place.spec(), idempotency_key="twice").id != first.id
    with pytest.raises(Conflict) as caught:
        place.jobs.submit(place.spec({"seed": 2}), idempotency_key="once")
    assert caught.value.code == "idempotency_key_reused"
    assert place.jobs.counts() == {"queued": 2}


def test_a_key_is_forgotten_after_a_day(place: Place) -> None:
    first = place.jobs.submit(place.spec(), idempotency_key="once")
    with place.database.session() as session:
        session.execute(text("UPDATE idempotency_keys SET expires_at = 0"))
    assert place.jobs.submit(place.spec({"seed": 2}), idempotency_key="once").id != first.id


def test_equal_requests_at_once_make_one_job(place: Place) -> None:
    """Fails when what the key has made is not looked up in the job's own transaction."""
    spec, made = place.spec(), []
    jobs = place.jobs
    threads = [
        threading.Thread(target=lambda: made.append(jobs.submit(spec, idempotency_key="k").id))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1
    assert place.jobs.counts() == {"queued": 1}


def test_a_job_that_is_not_final_is_not_deleted(place: Place) -> None:
    job = place.submitted()
    with pytest.raises(Conflict, match="queued"):
        place.jobs.delete(job.id)
    place.jobs.cancel(job.id)
    place.jobs.delete(job.id)
    with pytest.raises(NotFound):
        place.jobs.get(job.id)
    with pytest.raises(NotFound):
        place.jobs.get_run(job.run_id)


def test_lists_are_pages_that_stay(place: Place) -> None:
    jobs = [place.submitted(model=name) for name in ("a", "b", "a", "b", "a")]
    ids = [job.id for job in jobs]
    page = place.jobs.list(limit=2)
    assert [job.id for job in page.items] == ids[:-3:-1]
    assert page.has_more
    place.submitted()
    page = place.jobs.list(limit=2, after=page.items[-1].id)
    assert [job.id for job in page.items] == [ids[2], ids[1]]
    assert [job.id for job in place.jobs.list(model="b", order="asc").items] == [ids[1], ids[3]]
    place.jobs.cancel(ids[0])
    assert [job.id for job in place.jobs.list(state="cancelled").items] == [ids[0]]
    runs = place.jobs.runs(limit=6, order="asc").items
    assert [run.job_id for run in runs[:5]] == ids
    assert not place.jobs.runs(limit=6, order="asc").has_more


def test_ten_thousand_queued_jobs_are_no_burden(sqlite_place: Place) -> None:
    """Fails without the descending index: every claim would sort all that is queued."""
    place = sqlite_place
    first = place.submitted(priority=3)
    with place.database.session() as session:
        names = ", ".join(column.name for column in JobRow.__table__.columns if column.name != "id")
        session.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
                f"INSERT INTO jobs (id, {names}) SELECT printf('%026d', i), {names} FROM jobs, n"
            )
        )
        session.execute(
            insert(RunRow).from_select(
                ["id", "job_id", "parameters", "tags", "seed", "versions", "last_step", "progress"],
                select(
                    JobRow.id, JobRow.id, *(literal({}, json_type) for _ in range(2)),
                    literal(1), literal({}, json_type), literal(0), literal({}, json_type),
                ).where(JobRow.id != first.id),
            )
        )  # fmt: skip
        query = next_due().compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        plan = session.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
    assert "ix_jobs_state_priority_queued_at" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
    assert place.jobs.counts() == {"queued": 10_001}
    page = place.jobs.list(state="queued", limit=100)
    assert len(page.items) == 100
    claim = place.queue.claim("me", "local")
    assert claim is not None


def test_times_follow_from_the_lease() -> None:
    times = Times()
    assert (times.heartbeat, times.retry, times.stall, times.grace) == (10, 5, 600, 30)
