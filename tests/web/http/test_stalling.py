"""A client that neither reads nor sends is given up; one that does either is not."""

from __future__ import annotations

import asyncio

import pytest

from app.web.http import stalling
from app.web.http.stalling import StallGuard


class Transport(asyncio.Transport):
    """Counts what is unread; knows whether it was aborted."""

    unread = 100
    aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    ("reads", "sends", "given_up"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_only_who_does_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, reads: bool, sends: bool, given_up: bool
) -> None:
    monkeypatch.setattr(stalling, "STALL_SECONDS", 0.3)
    transport = Transport()

    async def watched() -> None:
        guard = StallGuard(asyncio.get_running_loop(), transport)
        guard.start()
        for _ in range(60):
            await asyncio.sleep(0.01)
            transport.unread -= reads
            if sends:
                guard.heard()
        guard.stop()
        assert transport.aborted == given_up
        transport.aborted = False
        await asyncio.sleep(0.4)
        assert not transport.aborted  # it was stopped

    asyncio.run(watched())


@pytest.mark.parametrize(("a_look", "given_up"), [(1, True), (20, False)])
def test_who_reads_hardly_anything_is_given_up(
    monkeypatch: pytest.MonkeyPatch, a_look: int, given_up: bool
) -> None:
    monkeypatch.setattr(stalling, "STALL_SECONDS", 0.12)
    monkeypatch.setattr(stalling, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(stalling, "SLOW_BYTES", 50)
    transport = Transport()

    async def watched() -> None:
        transport.unread = 10_000
        guard = StallGuard(asyncio.get_running_loop(), transport)
        guard.start()
        for _ in range(60):
            await asyncio.sleep(0.01)
            transport.unread -= a_look
        guard.stop()
        assert transport.aborted == given_up

    asyncio.run(watched())
