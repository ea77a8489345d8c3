"""The state machine: no way out of an end, every state reachable, every lease ends."""

from __future__ import annotations

from app.jobs.states import CANCEL, FINAL, LEASED, LOST, PAUSE, RESUME, JobState

FORWARD = {
    JobState.QUEUED: JobState.STARTING,
    JobState.STARTING: JobState.RUNNING,
    JobState.RUNNING: JobState.PUBLISHING,
    JobState.PUBLISHING: JobState.SUCCEEDED,
    JobState.PAUSING: JobState.PAUSED,
    JobState.CANCELLING: JobState.CANCELLED,
}
"""What a dispatcher or runner does without being asked."""


def moves() -> set[tuple[JobState, JobState]]:
    """Every change of state that can happen."""
    named = {
        (before, after)
        for table in (CANCEL, PAUSE, RESUME, LOST, FORWARD)
        for before, after in table.items()
        if before != after
    }
    return named | {(state, JobState.FAILED) for state in LEASED}


def test_final_states_never_change() -> None:
    assert not [move for move in moves() if move[0] in FINAL]


def test_every_state_is_reached_from_queued() -> None:
    reached = {JobState.QUEUED}
    while new := {after for before, after in moves() if before in reached} - reached:
        reached |= new
    assert reached == set(JobState)


def test_every_lease_can_be_lost_and_ends() -> None:
    assert set(LOST) == LEASED
    assert not set(LOST.values()) & LEASED


def test_asking_twice_is_asking_once() -> None:
    for table in (CANCEL, PAUSE, RESUME):
        for after in table.values():
            assert table[after] == after or after in FINAL


def test_what_cannot_be_asked() -> None:
    assert JobState.PUBLISHING not in CANCEL
    assert JobState.PUBLISHING not in PAUSE
    assert JobState.SUCCEEDED not in CANCEL
    assert JobState.CANCELLING not in PAUSE
    assert JobState.CANCELLING not in RESUME
    assert JobState.FAILED not in RESUME
