"""Clients that write, score, rank and read, as programs do."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, Final
from urllib.parse import quote

from benchmarks.loads import prompt
from benchmarks.soak.crowd import Workload, World
from benchmarks.soak.wire import NDJSON, Cut, Wire, code_of

_COMPLETIONS: Final = "/v1/completions"


def completion(model: str, **fields: Any) -> dict[str, Any]:
    """The body of a completion whose text does not end early."""
    text = prompt(random.choice((0, 1, 5, 50, 500, 3000)))
    return {"model": model, "prompt": text, "ignore_boundary": True, **fields}


async def complete(world: World) -> None:
    """Some completions over one kept connection."""
    async with Wire(world.port) as wire:
        for _ in range(random.randrange(1, 5)):
            body = completion(world.model(), max_tokens=random.choice((0, 1, 20, 200, 2000)))
            if random.random() < 0.3:
                body |= {"n": random.randrange(1, 9), "logprobs": random.randrange(0, 6)}
            await wire.ask(world.tally, "complete", "POST", _COMPLETIONS, body)


async def complete_large(world: World) -> None:
    """Many texts with many alternatives, near the largest answer and beyond."""
    size = random.choice((100, 1000, 20_000))
    body = completion(world.model(), max_tokens=size, n=32, best_of=64, logprobs=20, echo=True)
    async with Wire(world.port) as wire:
        await wire.ask(world.tally, "complete large", "POST", _COMPLETIONS, body)


async def stream(world: World) -> None:
    """One streamed answer, read to its end, which must be ``[DONE]`` or an error."""
    body = completion(world.model(), max_tokens=random.choice((1, 50, 500, 3000)), stream=True)
    if random.random() < 0.3:
        body |= {"n": random.randrange(1, 9), "logprobs": random.randrange(0, 6)}
    async with Wire(world.port) as wire:
        await read_stream(world, wire, body, "stream")


async def read_stream(world: World, wire: Wire, body: dict[str, Any], workload: str) -> None:
    """Send a streamed completion and read all of it; raises Cut when it lacks its end."""
    wire.send("POST", _COMPLETIONS, json.dumps(body).encode())
    head = await wire.head()
    if head.status != 200:
        refusal = b"".join([piece async for piece in wire.chunks(head)])
        world.tally.answer(workload, head.status, code_of(refusal))
        return
    rest, ended = b"", False
    async for piece in wire.chunks(head):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b'data: {"error"'):
                world.tally.answer(workload, "event", code_of(line[6:]))
                ended = True
            ended = ended or line.startswith(b"data: [DONE]")
    if not ended:
        raise Cut
    world.tally.answer(workload, 200)


async def score(world: World) -> None:
    """Texts in one body; now and then none at all."""
    texts = [prompt(random.randrange(1, 300)) for _ in range(random.choice((0, 1, 20, 200)))]
    body = {"model": world.model(), "input": texts, "per_character": random.random() < 0.3}
    if body["per_character"]:
        body["top"] = random.randrange(0, 21)
    async with Wire(world.port) as wire:
        await wire.ask(world.tally, "score", "POST", "/v1/score", body)


async def rank(world: World) -> None:
    """Candidates after a prompt."""
    candidates = [prompt(random.randrange(1, 20)) for _ in range(random.choice((1, 10, 500)))]
    body = {"model": world.model(), "prompt": prompt(40), "candidates": candidates}
    async with Wire(world.port) as wire:
        await wire.ask(world.tally, "rank", "POST", "/v1/rank", body)


async def bulk(world: World) -> None:
    """NDJSON, sent in pieces and read meanwhile; some lines are wrong."""
    await _bulk(world, "bulk", _lines(random.choice((10, 300, 2000))), pause=0.01)


async def bulk_slow(world: World) -> None:
    """NDJSON from a client that thinks for many seconds between lines."""
    await _bulk(world, "bulk slow", _lines(6), pause=random.uniform(1.0, 8.0), at_once=1)


async def bulk_first(world: World) -> None:
    """NDJSON that is sent whole before the client reads anything."""
    lines = _lines(random.choice((1000, 8000)))
    async with Wire(world.port) as wire:
        body = b"".join(lines)
        wire.send("POST", _bulk_path(world), body, {"content-type": NDJSON})
        await wire.writer.drain()
        await asyncio.sleep(0.5)
        await _read_lines(world, wire, "bulk first", len(lines))


def _lines(count: int) -> list[bytes]:
    wrong = (b'"cut\n', b"17\n", b'{"input": 3}\n', b'{"input": "a", "extra": 1}\n')
    return [
        random.choice(wrong)
        if random.random() < 0.02
        else json.dumps(prompt(random.randrange(1, 200))).encode() + b"\n"
        for _ in range(count)
    ]


def _bulk_path(world: World) -> str:
    return (
        f"/v1/score?model={quote(world.model())}&per_character={random.choice(('true', 'false'))}"
    )


async def _bulk(
    world: World, workload: str, lines: list[bytes], *, pause: float, at_once: int = 20
) -> None:
    async with Wire(world.port) as wire:
        headers = {"content-type": NDJSON, "transfer-encoding": "chunked"}
        wire.writer.write(
            f"POST {_bulk_path(world)} HTTP/1.1\r\nhost: 127.0.0.1\r\n".encode()
            + "".join(f"{name}: {said}\r\n" for name, said in headers.items()).encode()
            + b"\r\n"
        )

        async def send() -> None:
            for first in range(0, len(lines), at_once):
                piece = b"".join(lines[first : first + at_once])
                wire.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await wire.writer.drain()
                await asyncio.sleep(pause)
            wire.writer.write(b"0\r\n\r\n")

        sending = asyncio.create_task(send())
        try:
            await _read_lines(world, wire, workload, len(lines))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _read_lines(world: World, wire: Wire, workload: str, expected: int) -> None:
    """An answer in NDJSON: a line for each, or an error at its end."""
    head = await wire.head()
    rest, seen, last = b"", 0, ""
    async for piece in wire.chunks(head):
        *lines, rest = (rest + piece).split(b"\n")
        seen += len(lines)
        for line in lines:
            last = code_of(line) if b'"error"' in line else ""
            if last:
                world.tally.answer(workload, "line", last)
    if head.status != 200:
        world.tally.answer(workload, head.status, code_of(rest))
    elif seen < expected and not last:
        raise Cut
    else:
        world.tally.answer(workload, 200)


async def look(world: World) -> None:
    """What dashboards, browsers and clients ask for at their start."""
    name = random.choice(world.models)
    paths = ("/v1/models", f"/v1/models/{name}/versions", f"/v1/models/{name}@live", "/metrics",
             "/readyz", "/docs", "/openapi.json", "/v1/datasets", "/v1/jobs",
             f"/v1/models/{name}/file", f"/v1/models/{name}@7")  # fmt: skip
    async with Wire(world.port) as wire:
        for path in random.sample(paths, 4):
            await wire.ask(world.tally, "look", "GET", path)


WORKLOADS: Final = (
    Workload("complete", complete, 4, pause=0.3),
    Workload("complete large", complete_large, 1, pause=3.0),
    Workload("stream", stream, 6, pause=0.3),
    Workload("score", score, 2, pause=0.3),
    Workload("rank", rank, 2, pause=0.3),
    Workload("bulk", bulk, 2, pause=0.5),
    Workload("bulk slow", bulk_slow, 3, pause=0.5),
    Workload("bulk first", bulk_first, 1, pause=2.0),
    Workload("look", look, 1, pause=1.0),
)
