"""The door: who may wait, who is refused, and when to come back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from app.engine.locks import OwnedLock
from app.engine.scheduler import Limits, Scheduler
from app.errors import Overloaded, TooLarge


@dataclass(eq=False)
class Asking:
    unadmitted: int = 1
    symbols: int = 10
    ready: bool = True


def scheduler_of(limits: Limits) -> Scheduler:
    """A scheduler whose lock this thread holds."""
    lock = OwnedLock()
    lock.acquire()
    return Scheduler(limits, lock)


def test_a_burst_that_will_get_rows_at_once_is_not_refused() -> None:
    """Between two ticks many may come; none of these will wait."""
    scheduler = scheduler_of(Limits(rows=4, waiting_requests=0))
    for _ in range(4):
        scheduler.check(10)
        scheduler.enter(Asking())
    with pytest.raises(Overloaded):
        scheduler.check(10)


def test_rows_that_a_request_at_the_door_will_take_are_not_free() -> None:
    scheduler = scheduler_of(Limits(rows=4, waiting_requests=0))
    scheduler.enter(Asking(unadmitted=4))
    with pytest.raises(Overloaded):
        scheduler.check(10)


def test_symbols_that_wait_are_bounded() -> None:
    scheduler = scheduler_of(Limits(rows=1, waiting_requests=9, waiting_symbols=100))
    scheduler.running = 1
    scheduler.check(90)
    scheduler.enter(Asking(symbols=90))
    with pytest.raises(Overloaded):
        scheduler.check(11)
    with pytest.raises(TooLarge):
        scheduler.check(101)


def test_when_to_come_back_follows_from_what_waits_and_the_rate() -> None:
    scheduler = scheduler_of(Limits(rows=1))
    scheduler.turn(["a"])
    scheduler.used("a", seconds=1.0, symbols=100)
    scheduler.enter(Asking(symbols=1000))
    assert scheduler.retry_after() == pytest.approx(5.0)


def test_requests_take_turns_and_one_that_is_not_ready_is_passed_over() -> None:
    scheduler = scheduler_of(Limits(rows=9))
    slow, first, second = Asking(ready=False), Asking(), Asking()
    for each in (slow, first, second):
        scheduler.enter(each)
    assert [scheduler.next_request() for _ in range(4)] == [first, second, first, second]
    scheduler.leave(first)
    scheduler.leave(first)  # once more does nothing
    assert scheduler.waiting_symbols == 20
