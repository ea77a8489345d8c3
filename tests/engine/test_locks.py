"""A lock knows who holds it."""

from __future__ import annotations

import threading

import pytest

from app.engine.locks import OwnedLock
from app.engine.scheduler import Limits, Scheduler


def test_only_its_holder_holds_it() -> None:
    lock = OwnedLock()
    seen: list[bool] = []
    with lock:
        lock.check()
        other = threading.Thread(target=lambda: seen.append(lock.held))
        other.start()
        other.join()
    assert seen == [False]
    with pytest.raises(AssertionError, match="must hold"):
        lock.check()


def test_waiting_for_ones_own_lock_is_an_error() -> None:
    lock = OwnedLock()
    with lock, pytest.raises(AssertionError, match="already"):
        lock.acquire()
    assert lock.acquire(blocking=False)
    lock.release()


def test_a_condition_over_it_wakes_who_waits() -> None:
    lock = OwnedLock()
    condition = threading.Condition(lock)  # type: ignore[arg-type]  # it has a lock's methods
    news = threading.Event()
    told: list[bool] = []

    def wait() -> None:
        with condition:
            told.append(condition.wait_for(news.is_set, 30))
            lock.check()

    waiting = threading.Thread(target=wait)
    waiting.start()
    with condition:
        news.set()
        condition.notify_all()
    waiting.join()
    assert told == [True]


def test_the_scheduler_is_used_under_its_lock() -> None:
    with pytest.raises(AssertionError, match="must hold"):
        Scheduler(Limits(), OwnedLock()).check(1)
