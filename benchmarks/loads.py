"""Loads on a server: clients that request again at once, and requests that arrive at random.

Takes a port, returns what the clients saw. Prompts and seeds differ from request to
request, so that no server gains from a cache.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.client import Arrivals, Connection, Refused

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


def prompt(length: int) -> str:
    """A random text; long ones are new to the server."""
    return "".join(random.choices(CHARACTERS, k=length))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a fraction ``share`` of ``values`` lies; nan if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@dataclass(frozen=True)
class Seen:
    """What the clients of one load saw; times in seconds."""

    characters_per_second: float
    per_stream: float  # median characters per second, from first to last piece
    first_p50: float
    first_p99: float
    gap_p50: float
    gap_p99: float
    requests: int
    failed: int


def _body(prompt_length: int, max_tokens: int) -> dict[str, Any]:
    return {
        "prompt": prompt(prompt_length),
        "max_tokens": max_tokens,
        "ignore_boundary": True,
        "seed": random.getrandbits(50),
    }


def _seen(answers: Sequence[Arrivals], start: float, end: float, failed: int) -> Seen:
    arrived = sum(n for each in answers for at, n in each.pieces if start <= at < end)
    late = [end - each.asked for each in answers if not each.pieces and end > each.asked]
    firsts = [s for each in answers if (s := each.first_seconds) is not None] + late
    gaps = [gap for each in answers for gap in each.gaps]
    rates = [
        (each.characters - each.pieces[0][1]) / (each.pieces[-1][0] - each.pieces[0][0])
        for each in answers
        if len(each.pieces) > 1
    ]
    return Seen(
        arrived / (end - start),
        statistics.median(rates) if rates else float("nan"),
        quantile(firsts, 0.5),
        quantile(firsts, 0.99),
        quantile(gaps, 0.5),
        quantile(gaps, 0.99),
        len(answers),
        failed,
    )


async def closed_loop(
    port: int, clients: int, *, seconds: float, prompt_length: int = 50, max_tokens: int = 200
) -> Seen:
    """``clients`` request a stream, read it and repeat; ``seconds / 5`` of warm-up come first."""
    answers: list[Arrivals] = []
    failed = 0

    async def client() -> None:
        nonlocal failed
        async with Connection(port) as connection:
            while True:
                answers.append(Arrivals(time.perf_counter()))
                try:
                    await connection.stream(_body(prompt_length, max_tokens), answers[-1])
                except Refused:
                    failed += 1
                    answers.pop()
                    return

    running = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(seconds / 5)
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    end = time.perf_counter()
    await _stop(running)
    recent = [each for each in answers if not each.pieces or each.pieces[-1][0] >= start]
    return _seen(recent, start, end, failed)


async def poisson(
    port: int,
    requests_per_second: float,
    *,
    seconds: float,
    prompt_length: int = 50,
    max_tokens: int = 64,
) -> Seen:
    """Requests arrive independently at a mean rate, whatever the server does."""
    answers: list[Arrivals] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        mine = Arrivals(time.perf_counter())
        answers.append(mine)
        try:
            async with Connection(port) as connection:
                await connection.stream(_body(prompt_length, max_tokens), mine)
        except (Refused, OSError, asyncio.IncompleteReadError):
            failed += 1
            answers.remove(mine)

    running: list[asyncio.Task[None]] = []
    start = time.perf_counter()
    due = start
    while (due := due + random.expovariate(requests_per_second)) < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(one()))
    if running:
        await asyncio.wait(running, timeout=1.0)
    end = time.perf_counter()
    await _stop(running)
    return _seen(answers, start, end, failed)


async def first_character_under_load(
    port: int, *, streams: int = 64, requests: int = 200, prompt_length: int = 1000
) -> list[float]:
    """Seconds to the first character of new requests while ``streams`` others run."""

    async def endless() -> None:
        async with Connection(port) as connection:
            while True:
                await connection.stream(_body(50, 100_000), Arrivals(time.perf_counter()))

    running = [asyncio.create_task(endless()) for _ in range(streams)]
    await asyncio.sleep(1.0)
    taken: list[float] = []
    async with Connection(port) as connection:
        for _ in range(requests):
            mine = Arrivals(time.perf_counter())
            await connection.stream(_body(prompt_length, 1), mine)
            if mine.first_seconds is not None:
                taken.append(mine.first_seconds)
            await asyncio.sleep(random.uniform(0.0, 0.02))
    await _stop(running)
    return taken


async def typing(port: int, requests: int = 400) -> list[float]:
    """Seconds of whole requests for one character; each prompt is one character longer."""
    text, taken = prompt(100), []
    async with Connection(port) as connection:
        for place in range(requests):
            text += prompt(1)
            body = {"prompt": text, "max_tokens": 1, "ignore_boundary": True}
            start = time.perf_counter()
            await connection.ask(body)
            if place >= 50:
                taken.append(time.perf_counter() - start)
    return taken


async def _stop(running: Sequence[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
