"""A lock that knows its owner, so that what it guards can check that it is held."""

from __future__ import annotations

import threading


class OwnedLock:
    """A lock for ``with``; also the lock of a ``threading.Condition``.

    Not reentrant. ``check`` belongs at the start of every method that may only be called
    with the lock held.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As ``threading.Lock.acquire``; waiting for one's own lock is an error, not forever."""
        assert not (blocking and self.held), "this thread has the lock already"
        acquired = self._lock.acquire(blocking, timeout)
        if acquired:
            self._owner = threading.get_ident()
        return acquired

    def release(self) -> None:
        """As ``threading.Lock.release``."""
        self._owner = None
        self._lock.release()

    @property
    def held(self) -> bool:
        """Whether the calling thread holds the lock."""
        return self._owner == threading.get_ident()

    def check(self) -> None:
        """Assert that the calling thread holds the lock."""
        assert self.held, "the caller must hold the lock"

    def __enter__(self) -> OwnedLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
