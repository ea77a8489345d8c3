"""Clients that repeat a workload until they are cancelled, whatever happens to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.soak.tally import CUT, REFUSED, RESET, TIMEOUT, Tally
from benchmarks.soak.wire import Cut, NoAnswer


@dataclass
class World:
    """What all workloads share; ``models`` are there for the whole run."""

    port: int
    tally: Tally
    models: Sequence[str]
    file: bytes  # of a model, to import

    def model(self) -> str:
        """A reference to a model: by name, version or alias."""
        name = random.choice(self.models)
        return random.choice((name, name, f"{name}@1", f"{name}@live"))


@dataclass(frozen=True)
class Workload:
    """What ``clients`` clients do again and again, each round within ``limit`` seconds.

    ``polite``: the client keeps to HTTP and reads, so that it must never see a cut answer, a
    reset, or its time limit. Others only must not see an undocumented answer.
    """

    name: str
    once: Callable[[World], Awaitable[None]]
    clients: int = 1
    pause: float = 0.2  # seconds between rounds, at most
    limit: float = 120.0
    polite: bool = True


async def crowd(world: World, workloads: Sequence[Workload]) -> None:
    """Run all clients until cancelled."""
    clients = [_client(world, each) for each in workloads for _ in range(each.clients)]
    await asyncio.gather(*clients)


async def _client(world: World, workload: Workload) -> None:
    while True:
        failure = await _round(world, workload)
        if failure is not None:
            world.tally.failure(workload.name, failure)
        pause = random.uniform(0.0, workload.pause)
        await asyncio.sleep(pause + (0.3 if failure == REFUSED else 0.0))


async def _round(world: World, workload: Workload) -> str | None:
    """One round; returns how it failed. An error of the client is named, and ends nothing."""
    try:
        async with asyncio.timeout(workload.limit):
            await workload.once(world)
    except ConnectionRefusedError:
        return REFUSED
    except TimeoutError:
        return TIMEOUT
    except Cut:
        return CUT
    except (NoAnswer, OSError, EOFError):
        return RESET
    except Exception as error:  # noqa: BLE001 (a fault of the client is told at the end)
        return f"client: {type(error).__name__}: {error}"[:120]
    return None
