"""Holds on models for requests on an event loop: wait for a load without blocking.

Takes a ``Resident``, whose ``acquire`` may wait for disk and database; runs it in threads of
its own, once for everyone who waits for the same name. A loaded model is served without the
database: if its name cannot be looked up again soon, it means what it meant before.

Used on one event loop only, so nothing here is locked. Progress rests on no callback: a load
that is over is never waited for again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic

from ..errors import Overloaded
from .resident import Hold, Resident, V

_THREADS: Final = 4
_PATIENCE_SECONDS: Final = 0.25
"""How long a request for a loaded model waits until its name is looked up again."""


class _Load(Generic[V]):
    """One call of ``acquire`` and the requests that wait for it.

    Each takes a hold of its own; the load's is released when nobody waits any more.
    """

    def __init__(self, acquired: asyncio.Future[Hold[V]], began: float) -> None:
        self.began = began
        self._acquired = acquired
        self._waiting = 0
        acquired.add_done_callback(lambda _: self._settle())

    @property
    def over(self) -> bool:
        return self._acquired.done()

    async def hold(self) -> Hold[V]:
        """A hold, once there is one; raises what loading raises."""
        self._waiting += 1
        try:
            return (await asyncio.shield(self._acquired)).share()
        finally:
            self._waiting -= 1
            self._settle()

    def _settle(self) -> None:
        if self._waiting or not self.over or self._acquired.cancelled():
            return
        if self._acquired.exception() is None:
            self._acquired.result().release()


class Loader(Generic[V]):
    """Gives holds on the models of a ``Resident``; close it at the end."""

    def __init__(self, resident: Resident[V]) -> None:
        self._resident = resident
        self._threads = ThreadPoolExecutor(_THREADS, "loader")
        self._loads: dict[str | None, _Load[V]] = {}
        self._closed = False

    async def hold(self, name: str | None) -> Hold[V]:
        """A hold on the version that ``name`` means; the caller releases it.

        Raises what ``Resident.acquire`` raises.
        """
        ready = self._resident.try_acquire(name)
        if ready is not None:
            return ready
        load = self._load(name)
        known = self._resident.try_acquire(name, stale=True)
        if known is None:
            return await load.hold()
        left = load.began + _PATIENCE_SECONDS - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, left)):
                found = await load.hold()
        except TimeoutError:  # the database does not answer
            return known
        except BaseException:
            known.release()
            raise
        known.release()
        return found

    def forget_names(self) -> None:
        """Look every name up again before the next hold, because what names mean has changed."""
        self._resident.forget_names()
        self._loads.clear()  # they may have looked before the change

    def close(self) -> None:
        """Stop loading; loads that have not begun are cancelled."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _load(self, name: str | None) -> _Load[V]:
        """The load of this name that is under way, or a new one."""
        known = self._loads.get(name)
        if known is not None and not known.over:
            return known
        if self._closed:
            raise Overloaded("The server is shutting down; try again later.", code="draining")
        loop = asyncio.get_running_loop()
        acquired = loop.run_in_executor(self._threads, self._resident.acquire, name)
        # What is over goes here, so that this holds only names that are being loaded.
        self._loads = {each: load for each, load in self._loads.items() if not load.over}
        self._loads[name] = load = _Load(acquired, loop.time())
        return load
