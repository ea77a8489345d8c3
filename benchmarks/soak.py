"""``python -m benchmarks.soak --minutes 60``: does memory stay flat under mixed load?

The load: streams of all lengths, clients that disconnect midway, long prompts, scoring,
and so many distinct texts that the state cache is always full. Prints the server's
resident memory. The figure that counts is its growth from the second third of the time
to the last; it is stored for the page that ``python -m benchmarks --report`` writes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from benchmarks.client import Arrivals, Connection
from benchmarks.fleet import cores, network_file, server
from benchmarks.kept import keep
from benchmarks.loads import prompt, quantile

_say = Console(highlight=False).print
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    asyncio.run(_soak(60 * parser.parse_args().minutes))


async def _soak(seconds: float) -> None:
    os.sched_setaffinity(0, cores()[1])
    os.environ["CHARLOOM_STATE_CACHE_MB"] = "32"  # fills up soon
    with tempfile.TemporaryDirectory() as folder:
        weights = network_file(Path(folder), 2, 128)
        async with server("charloom", weights) as running:
            until = time.monotonic() + seconds
            asked = [0]
            clients = [asyncio.create_task(_client(running.port, asked)) for _ in range(24)]
            memory: list[float] = []
            while time.monotonic() < until:
                await asyncio.sleep(min(15.0, seconds / 20))
                memory.append(_resident(running.pid))
                _say(f"{seconds - (until - time.monotonic()):6.0f} s  {memory[-1]:7.1f} MB")
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            third = len(memory) // 3
            settled, end = (quantile(part, 0.5) for part in (memory[third:-third], memory[-third:]))
            _say(f"{asked[0]:,} requests; second third {settled:.1f} MB, last third {end:.1f} MB")
            keep(
                "soak",
                {"minutes": seconds / 60, "requests": asked[0], "settled": settled, "last": end},
            )


async def _client(port: int, asked: list[int]) -> None:
    while True:
        asked[0] += 1
        body = {"prompt": prompt(random.choice((0, 5, 50, 500, 3000))), "ignore_boundary": True}
        kind = random.random()
        async with Connection(port) as connection:
            if kind < 0.3:
                texts = [prompt(random.randrange(1, 300)) for _ in range(20)]
                await connection.ask({"input": texts}, "/v1/score")
            elif kind < 0.5:  # disconnects midway
                with suppress(TimeoutError):
                    body["max_tokens"] = 50_000
                    async with asyncio.timeout(random.uniform(0.01, 0.5)):
                        await connection.stream(body, Arrivals(0.0))
            else:
                body["max_tokens"] = random.choice((1, 20, 200, 2000))
                await connection.stream(body, Arrivals(0.0))


def _resident(pid: int) -> float:
    """Resident memory in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


if __name__ == "__main__":
    main()
