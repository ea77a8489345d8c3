"""Who may come in, and who goes when all places are taken."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from app.web.http import door as doors
from app.web.http.door import Door, places


@dataclass(eq=False)
class Caller:
    address: str = "a"
    dropped: bool = False
    waiting_since: float | None = None

    def drop(self) -> None:
        self.dropped = True


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def entered(door: Door, count: int, address: str = "a") -> list[Caller]:
    callers = [Caller(address) for _ in range(count)]
    for each in callers:
        door.enter(each)
    return callers


def test_silent_connections_of_one_address_are_bounded_once_they_are_old() -> None:
    clock = Clock()
    door = Door(most_silent=3, clock=clock)
    burst = entered(door, 10)  # a proxy that has just started: all are about to speak
    assert not any(each.dropped for each in burst)
    clock.now = 2.0
    entered(door, 4)
    assert [each.dropped for each in burst] == [True] * 4 + [False] * 6
    others = entered(door, 3, "b")
    assert not any(each.dropped for each in others)


def test_who_has_spoken_is_not_counted_for_its_address() -> None:
    clock = Clock()
    door = Door(most_silent=2, clock=clock)
    busy = entered(door, 50)
    for each in busy:
        door.spoke(each)
    clock.now = 9.0
    entered(door, 2)
    assert not any(each.dropped for each in busy)


def test_a_newcomer_gets_the_place_of_a_silent_one_then_of_an_idle_one() -> None:
    clock = Clock()
    door = Door(most=6, clock=clock)
    busy, idle, silent = entered(door, 2), entered(door, 2), entered(door, 2, "b")
    clock.now = 2.0
    for each in busy + idle:
        door.spoke(each)
    for each in idle:
        door.rests(each)
    for _ in range(4):
        newcomer = Caller("c")
        assert door.enter(newcomer)
        door.spoke(newcomer)
    assert silent[0].dropped
    assert silent[1].dropped
    assert idle[0].dropped
    assert idle[1].dropped
    assert not door.enter(Caller("c"))  # all are busy: it is told so
    assert not any(each.dropped for each in busy)
    assert len(door) == 7


def test_the_address_with_the_most_silent_connections_makes_room() -> None:
    door = Door(most=10)
    patient = entered(door, 1, "patient")
    crowd = entered(door, 9, "crowd")
    door.enter(Caller("new"))
    assert not patient[0].dropped
    assert [each.dropped for each in crowd] == [True] + [False] * 8


def test_newcomers_that_are_about_to_speak_do_not_push_each_other_out() -> None:
    door = Door(most=50)
    idle = entered(door, 50)
    for each in idle:
        door.spoke(each)
        door.rests(each)
    newcomers = entered(door, 30, "proxy")
    assert not any(each.dropped for each in newcomers)
    assert sum(each.dropped for each in idle) == 30


def test_the_kept_places_are_not_given_away() -> None:
    """When all are busy, each newcomer may take the place of the one before, and no more."""
    door = Door(most=4)
    for each in entered(door, 4):
        door.spoke(each)
    for _ in range(10):
        assert not door.enter(Caller("late"))
        assert len(door) <= 6


def test_beyond_the_kept_places_newcomers_are_dropped() -> None:
    door = Door(most=2)
    for each in entered(door, 2):
        door.spoke(each)
    told = [Caller("c") for _ in range(doors._KEPT_PLACES)]
    for each in told:
        assert not door.enter(each)
        door.spoke(each)
    assert not any(each.dropped for each in told)
    last = Caller("d")
    assert not door.enter(last)
    assert last.dropped


def test_nobody_is_counted_twice_or_forgotten() -> None:
    dice, clock = random.Random(1), Clock()
    door = Door(most=20, most_silent=5, clock=clock)
    there: set[Caller] = set()
    for _ in range(5000):
        clock.now += dice.random()
        caller = dice.choice(list(there)) if there else None
        do = dice.randrange(5)
        if do < 2 or caller is None:
            new = Caller(dice.choice("abc"))
            there.add(new)
            door.enter(new)
        elif do == 2:
            door.spoke(caller)
        elif do == 3:
            door.spoke(caller)
            door.rests(caller)
        else:
            there.discard(caller)
            door.leave(caller)
        there = {each for each in there if not each.dropped}
        assert len(door) == len(there)
        assert len(door) <= 20 + doors._KEPT_PLACES
    for each in there:
        door.leave(each)
    assert len(door) == 0
    assert not door._silent
    assert not door._idle


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000, 1 << 20])
def test_descriptors_are_kept_for_files(descriptors: int) -> None:
    most, backlog = places(descriptors)
    assert 16 <= most <= 4096
    assert 16 <= backlog <= 2048
    if descriptors >= 1024:
        assert most + backlog + doors._KEPT_PLACES + doors._KEPT_FILES <= descriptors


def test_a_body_that_stands_still_loses_its_place_when_all_others_are_busy() -> None:
    clock = Clock()
    door = Door(most=4, clock=clock)
    busy = entered(door, 4)
    for each in busy:
        door.spoke(each)
    busy[1].waiting_since, busy[2].waiting_since = 3.0, 1.0
    clock.now = 5.0
    early = Caller("b")
    assert door.enter(early) is False  # nobody has stood still for long
    door.leave(early)
    clock.now = 11.0
    assert door.enter(Caller("b")) is True
    assert [each.dropped for each in busy] == [False, False, True, False]
    door.enter(Caller("c"))  # the one before has not spoken yet, but has only just come
    assert [each.dropped for each in busy] == [False, False, True, False]


def test_who_stands_still_goes_before_who_has_just_come() -> None:
    clock = Clock(100.0)
    door = Door(most=3, clock=clock)
    busy = entered(door, 3)
    for each in busy:
        door.spoke(each)
        each.waiting_since = 1.0
    newcomers = entered(door, 3, "b")
    assert all(each.dropped for each in busy)
    assert not any(each.dropped for each in newcomers)


@pytest.mark.parametrize(
    ("addresses", "bounded"),
    [
        (("2001:db8::1", "2001:db8::2:1"), True),
        (("2001:db8::1%eth0", "2001:db8::2"), True),
        (("2001:db8::1", "2001:db8:0:1::1"), False),
        (("::ffff:192.0.2.1", "192.0.2.1"), True),
        (("192.0.2.1", "192.0.2.2"), False),
    ],
)
def test_addresses_that_one_client_may_have_count_as_one(
    addresses: tuple[str, str], bounded: bool
) -> None:
    clock = Clock()
    door = Door(most_silent=2, clock=clock)
    first = entered(door, 1, addresses[0])[0]
    clock.now = 5.0
    entered(door, 2, addresses[1])
    assert first.dropped is bounded


def test_what_is_turned_away_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    door = Door(most=1, clock=clock)
    door.spoke(entered(door, 1)[0])
    for _ in range(5):
        entered(door, 1)
    assert len(caplog.records) == 1
    clock.now = 61.0
    entered(door, 1)
    assert len(caplog.records) == 2
