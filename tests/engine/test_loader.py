"""Requests on a loop wait for loads, whenever they come, and need no database for the rest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from app.engine.loader import Loader
from app.engine.resident import Resident
from app.errors import Overloaded, StorageFailed, UnknownModel
from tests.engine.test_resident import Published, Shelf

_FASTER = 20  # the resident's clock, so that names are stale after 0.05 s


class SlowShelf(Shelf):
    """A source that takes ``seconds`` to resolve a name."""

    seconds = 0.0

    def resolve(self, name: str | None, /) -> Published:
        time.sleep(self.seconds)
        return super().resolve(name)


def fast_clock() -> float:
    return time.monotonic() * _FASTER


def in_a_thread(work: Coroutine[Any, Any, None], seconds: float = 60.0) -> None:
    """Run on a loop of its own; a loop that hangs without waiting fails the test, not the suite."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 (raised below, in the test)
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the event loop hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.05, 0.055, 0.1, 0.15])
def test_no_load_hangs_whenever_requests_come(seconds: float) -> None:
    """Loads of 0 to 3 s of a name that is stale after 1 s, all on a clock 20 times as fast."""
    shelf = SlowShelf()
    shelf.seconds = seconds
    resident = Resident(shelf, clock=fast_clock)

    async def ask(loader: Loader[Published], after: float) -> None:
        await asyncio.sleep(after)
        with await loader.hold("a") as hold:
            assert hold.version.name == "a"

    async def everything() -> None:
        loader = Loader(resident)
        for _ in range(3):
            # Around the end of the load, 0.5 ms apart, and between.
            phases = [seconds + step / 2000 for step in range(-10, 11)]
            phases += [seconds * share / 10 for share in range(10)]
            await asyncio.gather(*(ask(loader, max(0.0, phase)) for phase in phases))
        await asyncio.sleep(seconds + 0.05)
        loader.close()

    in_a_thread(everything())
    assert [place.users for place in resident._places.values()] == [0]


def test_a_load_is_shared_and_lives_on_when_one_of_its_waiters_leaves() -> None:
    shelf = Shelf()
    shelf.may_open.clear()
    resident = Resident(shelf)

    async def everything() -> None:
        loader = Loader(resident)
        waiting = [asyncio.ensure_future(loader.hold("a")) for _ in range(5)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        shelf.may_open.set()
        holds = await asyncio.gather(*waiting[1:])
        assert len({id(hold.network) for hold in holds}) == 1
        for hold in holds:
            hold.release()
        loader.close()

    in_a_thread(everything())
    assert shelf.opened == ["a"]
    assert shelf.resolved == 1
    assert [place.users for place in resident._places.values()] == [0]


def test_a_load_that_everyone_left_holds_nothing() -> None:
    shelf = Shelf()
    shelf.may_open.clear()
    resident = Resident(shelf)

    async def everything() -> None:
        loader = Loader(resident)
        waiting = asyncio.ensure_future(loader.hold("a"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.sleep(0)
        shelf.may_open.set()
        while not resident.bytes:
            await asyncio.sleep(0.01)
        with await loader.hold("a"):
            assert [place.users for place in resident._places.values()] == [1]
        loader.close()

    in_a_thread(everything())
    assert [place.users for place in resident._places.values()] == [0]


@pytest.mark.parametrize("failure", [Overloaded("locked"), StorageFailed("gone")])
def test_a_loaded_model_needs_no_database(failure: Exception) -> None:
    shelf = Shelf()
    resident = Resident(shelf, clock=fast_clock)

    async def everything() -> None:
        loader = Loader(resident)
        (await loader.hold(None)).release()
        shelf.failure = failure
        await asyncio.sleep(0.1)
        for name in (None, None):
            (await loader.hold(name)).release()
        with pytest.raises(type(failure)):
            await loader.hold("b")
        shelf.failure = UnknownModel("deleted")
        await asyncio.sleep(0.1)
        with pytest.raises(UnknownModel):
            await loader.hold(None)
        loader.close()

    in_a_thread(everything())
    assert shelf.opened == ["a"]
    assert [place.users for place in resident._places.values()] == [0]


def test_a_database_that_hangs_delays_a_loaded_model_for_a_moment_only() -> None:
    shelf = SlowShelf()
    resident = Resident(shelf, clock=fast_clock)

    async def everything() -> None:
        loader = Loader(resident)
        (await loader.hold("a")).release()
        shelf.seconds = 2.0
        await asyncio.sleep(0.1)
        before = shelf.resolved
        for _ in range(3):
            (await loader.hold("a")).release()
        assert shelf.resolved == before  # three answers while the first look-up still runs
        loader.close()

    in_a_thread(everything())
    assert [place.users for place in resident._places.values()] == [0]


def test_what_a_name_meant_before_a_change_is_not_remembered() -> None:
    """A look-up that began before an alias moved must not be believed after it."""
    shelf = SlowShelf()
    resident = Resident(shelf)

    async def everything() -> None:
        loader = Loader(resident)
        shelf.seconds = 0.2
        early = asyncio.ensure_future(loader.hold("a"))
        await asyncio.sleep(0.1)
        loader.forget_names()
        (await early).release()
        shelf.versions["a"] = Published("b", 1, "b" * 64)
        with await loader.hold("a") as hold:
            assert hold.version.name == "b"
        loader.close()

    in_a_thread(everything())
