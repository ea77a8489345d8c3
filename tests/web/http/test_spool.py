"""What a slow reader has not taken waits on disk: whole, in order, bounded, and gone after."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from app.errors import StorageFailed, TooLarge
from app.web.http import spool as spools
from app.web.http.room import Room
from app.web.http.spool import Spool


def spool_in(folder: Path, room: Room) -> Spool:
    return Spool(room, lambda: folder)


@pytest.mark.parametrize("reader", ["quick", "slow", "after"])
def test_everything_arrives_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setattr(spools, "_MEMORY_BYTES", 1000)
    monkeypatch.setattr(spools, "_SEGMENT_BYTES", 5000)
    dice = random.Random(1)
    pieces = [dice.randbytes(dice.randrange(1, 3000)) for _ in range(200)]
    room = Room(10_000_000)

    async def run() -> bytes:
        spool = spool_in(tmp_path, room)

        async def write() -> None:
            for piece in pieces:
                await spool.put(piece)
                if dice.random() < 0.2:
                    await asyncio.sleep(0)
            spool.end(b"last")

        writing = asyncio.ensure_future(write())
        if reader == "after":
            await writing
        got = b""
        async for piece in spool.pieces():
            got += piece
            if reader == "slow":
                await asyncio.sleep(0.0005)
        await writing
        spool.close()
        return got

    assert asyncio.run(run()) == b"".join(pieces) + b"last"
    assert room.used == 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_room_waits_for_the_reader_and_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "_MEMORY_BYTES", 10)
    monkeypatch.setattr(spools, "_SEGMENT_BYTES", 100)
    monkeypatch.setattr(spools, "WAIT_SECONDS", 0.1)
    room = Room(200)

    async def run() -> None:
        spool = spool_in(tmp_path, room)
        for _ in range(5):  # the first of them in memory
            await spool.put(b"x" * 50)
        with pytest.raises(TooLarge) as refused:
            await spool.put(b"x" * 50)
        assert refused.value.code == "answer_not_read"
        spool.end(b"why")
        got = [piece async for piece in spool.pieces()]
        assert got[-1] == b"why"
        assert b"".join(got[:-1]) == b"x" * 250
        spool.close()

    asyncio.run(run())
    assert room.used == 0


def test_a_folder_that_is_gone_is_said_and_keeps_no_room(tmp_path: Path) -> None:
    room = Room(1 << 30)

    async def run() -> None:
        spool = Spool(room, lambda: tmp_path / "gone")
        await spool.put(b"x" * 100_000)
        with pytest.raises(StorageFailed):
            await spool.put(b"x")
        spool.close()

    asyncio.run(run())
    assert room.used == 0


def test_what_nobody_reads_is_dropped(tmp_path: Path) -> None:
    room = Room(1 << 30)

    async def run() -> None:
        spool = spool_in(tmp_path, room)
        await spool.put(b"x" * 10_000_000)
        writing = asyncio.ensure_future(spool.put(b"y" * 1_000_000))
        await asyncio.sleep(0)
        writing.cancel()
        spool.close()

    asyncio.run(run())
    assert room.used == 0


def test_a_prompt_reader_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for pieces larger than the memory, while others use all of the room."""
    monkeypatch.setattr(spools, "WAIT_SECONDS", 5.0)
    pieces = [bytes([number]) * 100_000 for number in range(20)]

    async def run() -> bytes:
        spool = spool_in(tmp_path, Room(0))

        async def write() -> None:
            for piece in pieces:
                await spool.put(piece)
            spool.end()

        writing = asyncio.ensure_future(write())
        got = b"".join([piece async for piece in spool.pieces()])
        await writing
        spool.close()
        return got

    assert asyncio.run(run()) == b"".join(pieces)
