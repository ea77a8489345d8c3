"""What health checks look at, in threads of its own: they answer while all others wait.

One look at a thing at a time, shared by everyone who asks meanwhile: where a disk or a database
does not answer, no threads gather behind it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, TypeVar

import anyio

from ..catalog.datasets import DATA_FOLDER_GONE
from ..errors import CharloomError, StorageFailed

T = TypeVar("T")
_SECONDS: Final = 3.0


class Probe(Generic[T]):
    """One look, in a thread; who asks while it is under way gets the same one."""

    def __init__(self, threads: ThreadPoolExecutor, look: Callable[[], T]) -> None:
        self._threads = threads
        self._look = look
        self._looking: asyncio.Future[T] | None = None

    async def __call__(self, seconds: float) -> T:
        """What the look gives or raises; raises TimeoutError after ``seconds``."""
        if self._looking is None or self._looking.done():
            loop = asyncio.get_running_loop()
            self._looking = loop.run_in_executor(self._threads, self._look)
            self._looking.add_done_callback(_taken)
        with anyio.fail_after(seconds):
            return await asyncio.shield(self._looking)


def _taken(looked: asyncio.Future[T]) -> None:
    """Nobody may have waited for it; else its error would be logged as forgotten."""
    if not looked.cancelled():
        looked.exception()


async def wrong(probes: Mapping[str, Probe[None]]) -> dict[str, str]:
    """What does not pass, with a sentence for each that says why."""

    async def reason(probe: Probe[None]) -> str | None:
        try:
            await probe(_SECONDS)
        except TimeoutError:
            return f"There was no answer within {_SECONDS:g} seconds."
        except CharloomError as error:
            return error.message
        return None

    reasons = await asyncio.gather(*map(reason, probes.values()))
    return {name: said for name, said in zip(probes, reasons, strict=True) if said is not None}


def check_folder(folder: Path) -> None:
    """Raises StorageFailed if the data folder is gone or takes no files."""
    where = "CHARLOOM_DATA_DIR says where it is."
    try:
        there = folder.is_dir()
    except OSError as error:  # a mount that has died
        raise StorageFailed(
            f"The data folder cannot be looked at ({error.strerror}). {where}"
        ) from error
    if not there:
        raise StorageFailed(DATA_FOLDER_GONE)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageFailed(
            f"The data folder is read-only for Charloom's user; give it access. {where}"
        )
