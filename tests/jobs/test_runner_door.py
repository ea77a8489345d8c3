"""RunnerDoor on both databases: a stale token writes nothing, an end ends once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text, update

from app.catalog.model_rows import ModelVersion
from app.catalog.synchronising import Staged
from app.database.job_tables import JobRow
from app.errors import LeaseLost, UnknownModel
from app.jobs.checkpoints.rows import NewCheckpoint
from app.jobs.dispatcher_door import DispatcherDoor
from app.jobs.publishing import publish
from app.jobs.runner_door import RunnerDoor
from app.jobs.states import JobState, Wish
from app.jobs.times import Times
from app.jobs.values import CheckpointKind, Claim, Job, JobProgress, Point
from tests.jobs.making import Place
from tests.models import tiny_artifact


def progress(step: int) -> JobProgress:
    return JobProgress(step, 100, 0, step / 100, 1000.0, 2.0, None, 3.0)


def points(*steps: int) -> list[Point]:
    return [Point("train_loss", step, 1000 + step, float(step)) for step in steps]


def checkpoint(step: int, kind: CheckpointKind = "periodic") -> NewCheckpoint:
    return NewCheckpoint(step, 0, kind, f"{kind}-{step}", "0" * 64, 10, {})


def published(place: Place, claim: Claim, staged: Staged) -> ModelVersion:
    return publish(place.door, place.registry, claim, staged)


def begun(place: Place, **fields: Any) -> tuple[Job, Claim]:
    """A job whose runner is there."""
    job = place.submitted(**fields)
    claim = place.queue.claim("me", "local")
    assert claim is not None
    place.door.begin(claim, host="here", pid=1, pid_started=2.0)
    return place.jobs.get(job.id), claim


def taken_over(place: Place, claim: Claim) -> Claim:
    """Another attempt at the same job."""
    assert (
        DispatcherDoor(place.database, Times(0.0001)).lose(claim, "It was gone.") is JobState.QUEUED
    )
    with place.database.session() as session:
        session.execute(update(JobRow).values(not_before=0))
    other = place.queue.claim("other", "local")
    assert other is not None
    assert other.token > claim.token
    return other


def test_a_runner_that_lost_its_lease_writes_nothing(place: Place) -> None:
    """Each line fails if its method does not check the token."""
    job, stale = begun(place)
    staged = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    current = taken_over(place, stale)
    before = place.jobs.get(job.id), place.jobs.events(job.id)
    door, run = place.door, job.run_id
    attempts: list[Callable[[], Any]] = [
        lambda: door.begin(stale, host="here", pid=1, pid_started=2.0),
        lambda: door.renew(stale),
        lambda: door.tell(stale, "prepared", "never"),
        lambda: door.take_up(stale, run, 0, {}),
        lambda: door.record(stale, run, points(1), progress(1)),
        lambda: place.door.checkpoints.add(stale, run, checkpoint(1)),
        lambda: door.to_publishing(stale),
        lambda: door.stop(stale),
        lambda: door.release(stale, "storage_failed", "never"),
        lambda: door.fail(stale, "training_failed", "never"),
        lambda: published(place, stale, staged),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            attempt()
    assert DispatcherDoor(place.database, place.times).lose(stale, "never") is None
    assert DispatcherDoor(place.database, place.times).fail(stale, "stalled", "never") is None
    assert (place.jobs.get(job.id), place.jobs.events(job.id)) == before
    assert list(place.jobs.metrics(job.run_id)) == []
    assert list(place.jobs.checkpoints(job.run_id)) == []
    with pytest.raises(UnknownModel):
        place.registry.resolve(job.model)
    assert place.door.renew(current) is Wish.RUN


def test_what_a_stale_runner_wrote_is_never_missing_and_never_doubled(place: Place) -> None:
    """Fails if a runner that lost its lease removes its file (it may have been adopted),
    and if it leaves it when the run was published as another one."""
    job, stale = begun(place)
    place.door.to_publishing(stale)
    first = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    current = taken_over(place, stale)
    place.door.begin(current, host="here", pid=1, pid_started=2.0)
    place.door.to_publishing(current)
    adopted = place.registry.left_by(job.run_id, job.model)
    assert adopted is not None
    with pytest.raises(LeaseLost):
        published(place, stale, first)
    assert published(place, current, adopted).key == first.key
    with pytest.raises(LeaseLost):
        published(place, stale, first)
    late = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    with pytest.raises(LeaseLost):
        published(place, stale, late)
    assert list(place.models.sizes()) == [first.key]
    place.registry.open(place.registry.resolve("words"))


def test_what_a_stale_runner_wrote_meanwhile_goes_with_the_success(place: Place) -> None:
    job, stale = begun(place)
    current = taken_over(place, stale)
    place.door.begin(current, host="here", pid=1, pid_started=2.0)
    place.door.to_publishing(current)
    ours = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    place.registry.stage(job.model, tiny_artifact(), job.run_id)  # by the stale one
    assert published(place, current, ours).key == ours.key
    assert list(place.models.sizes()) == [ours.key]
    assert place.registry.synchronise().added == []


def test_an_attempt_tells_and_publishes_once(place: Place) -> None:
    job, claim = begun(place)
    assert job.state is JobState.RUNNING
    door = place.door
    door.take_up(claim, job.run_id, 0, {"torch": "2"})
    assert door.record(claim, job.run_id, points(1, 2), progress(2)) is Wish.RUN
    assert door.to_publishing(claim)
    staged = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    assert published(place, claim, staged).id == "words@1"
    done = place.jobs.get(job.id)
    assert (done.state, done.model_version) == (JobState.SUCCEEDED, "words@1")
    assert done.progress == progress(2)
    assert done.finished_at is not None
    run = place.jobs.get_run(job.run_id)
    assert (run.versions, run.last_step, run.model_version) == ({"torch": "2"}, 2, "words@1")
    with pytest.raises(LeaseLost):
        published(place, claim, staged)
    assert place.events(job) == ["queued", "claimed", "started", "publishing", "succeeded"]


def test_a_crash_after_the_file_leaves_one_version(place: Place) -> None:
    """Fails without ``adopt``: the second attempt would write words@2, and a later
    ``synchronise`` register words@1 beside it."""
    job, claim = begun(place)
    place.door.to_publishing(claim)
    place.registry.stage(job.model, tiny_artifact(), job.run_id)
    second = taken_over(place, claim)
    place.door.begin(second, host="here", pid=1, pid_started=2.0)
    place.door.to_publishing(second)
    staged = place.registry.left_by(job.run_id, job.model)
    assert staged is not None
    assert published(place, second, staged).id == "words@1"
    assert place.registry.synchronise().added == []
    assert [each.id for each in place.registry.versions("words")] == ["words@1"]


def test_a_file_that_synchronise_registered_first(place: Place) -> None:
    job, claim = begun(place)
    place.door.to_publishing(claim)
    place.registry.stage(job.model, tiny_artifact(), job.run_id)
    assert place.registry.synchronise().added == ["words@1"]
    second = taken_over(place, claim)
    place.door.begin(second, host="here", pid=1, pid_started=2.0)
    before = place.registry.published_by(job.run_id)
    assert before is not None
    place.door.succeed_as(second, before)
    assert place.jobs.get(job.id).model_version == "words@1"


def test_two_files_of_one_run_become_one_version(place: Place) -> None:
    job, claim = begun(place)
    place.door.to_publishing(claim)
    first = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    with place.database.session() as session:
        place.registry.register(session, first)
    second = place.registry.stage(job.model, tiny_artifact(), job.run_id)
    assert published(place, claim, second).id == "words@1"
    assert list(place.models.sizes()) == ["words/1.safetensors"]


def test_going_on_from_a_step_forgets_what_was_beyond(place: Place) -> None:
    job, claim = begun(place)
    place.door.record(claim, job.run_id, points(1, 2, 3, 4), progress(4))
    second = taken_over(place, claim)
    place.door.begin(second, host="here", pid=1, pid_started=2.0)
    place.door.take_up(second, job.run_id, 2, {})
    place.door.record(second, job.run_id, points(3), progress(3))
    (series,) = place.jobs.metrics(job.run_id)
    assert [bucket.step for bucket in series.points] == [1, 2, 3]
    resumed = [each for each in place.jobs.events(job.id) if each.type == "resumed"]
    assert [each.payload for each in resumed] == [{"step": 2, "points_dropped": 2}]


def test_attempts_are_counted_from_the_last_checkpoint(place: Place) -> None:
    job, claim = begun(place, max_attempts=2)
    for step in (10, 20, 30):
        place.door.checkpoints.add(claim, job.run_id, checkpoint(step))
        claim = taken_over(place, claim)
    place.door.checkpoints.add(claim, job.run_id, checkpoint(25))  # no further than before
    claim = taken_over(place, claim)
    upkeep = DispatcherDoor(place.database, place.times)
    assert upkeep.lose(claim, "Gone.", exit_code=-9, last_words="a\nb") is JobState.FAILED
    failed = place.jobs.get(job.id)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (
        "runner_lost",
        "Gone. Its last output: a | b",
    )
    last = place.jobs.events(job.id)[-1]
    assert (last.type, last.level) == ("failed", "error")
    assert last.payload == {"exit_code": -9, "stderr": "a\nb"}


def test_a_lost_job_waits_longer_each_time(place: Place) -> None:
    job, claim = begun(place, max_attempts=5)
    waits = []
    for _ in range(3):
        DispatcherDoor(place.database, Times(12)).lose(claim, "Gone.")
        with place.database.session() as session:
            row = session.get_one(JobRow, job.id)
            lost_at = place.jobs.events(job.id)[-1].at
            waits.append(round((row.not_before - lost_at) / 1000))
            row.not_before = 0
        found = place.queue.claim("me", "local")
        assert found is not None
        claim = found
    assert waits == [1, 2, 4]


def test_a_released_job_can_be_given_back_uncounted(place: Place) -> None:
    job, claim = begun(place, max_attempts=1)
    place.door.release(claim, "terminated", "Asked to end.", counted=False)
    assert place.jobs.get(job.id).state is JobState.QUEUED
    again = place.queue.claim("me", "local")
    assert again is not None
    place.door.release(again, "storage_failed", "The disk is full.")
    failed = place.jobs.get(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.message == "The disk is full."


@pytest.mark.parametrize(
    ("verb", "lost", "stopped"),
    [("pause", JobState.PAUSED, "paused"), ("cancel", JobState.CANCELLED, "cancelled")],
)
def test_what_was_wanted_comes_true_however_the_attempt_ends(
    place: Place, verb: str, lost: JobState, stopped: str
) -> None:
    for end in (
        lambda claim: place.door.stop(claim),
        lambda claim: DispatcherDoor(place.database, place.times).lose(claim, "Gone."),
        lambda claim: place.door.release(claim, "storage_failed", "Full."),
    ):
        job, claim = begun(place)
        getattr(place.jobs, verb)(job.id)
        assert place.door.renew(claim) is Wish(verb)
        assert not place.door.to_publishing(claim)
        end(claim)
        assert place.jobs.get(job.id).state is lost
        assert place.events(job)[-1] == stopped


def test_a_failure_while_cancelling_is_a_cancellation(place: Place) -> None:
    job, claim = begun(place)
    place.jobs.cancel(job.id)
    place.door.fail(claim, "loss_not_finite", "Too fast.")
    assert place.jobs.get(job.id).state is JobState.CANCELLED


def test_resumed_before_the_pause_was_complete(place: Place) -> None:
    job, claim = begun(place)
    place.jobs.pause(job.id)
    place.jobs.resume(job.id)
    assert not place.door.stop(claim)
    assert place.door.renew(claim) is Wish.RUN
    assert place.jobs.get(job.id).state is JobState.RUNNING


def test_of_old_checkpoints_two_are_kept_and_the_best_and_the_final(place: Place) -> None:
    job, claim = begun(place)
    gone: list[str] = []
    for step in (1, 2, 3, 4):
        gone += place.door.checkpoints.add(claim, job.run_id, checkpoint(step))
    for kind, step in (("best", 2), ("best", 3), ("final", 4)):
        gone += place.door.checkpoints.add(claim, job.run_id, checkpoint(step, kind))  # type: ignore[arg-type]
    assert gone == ["periodic-1", "periodic-2", "best-2"]
    kept = [(each.kind, each.step) for each in place.jobs.checkpoints(job.run_id)]
    assert kept == [("final", 4), ("periodic", 4), ("best", 3), ("periodic", 3)]


def test_a_renewal_moves_the_end_of_the_lease(place: Place) -> None:
    _, claim = begun(place)
    with place.database.session() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = 1"))
    assert DispatcherDoor(place.database, place.times).active()[0].late > 10**9
    RunnerDoor(place.database, place.times).renew(claim)
    assert -61_000 < DispatcherDoor(place.database, place.times).active()[0].late < -50_000
