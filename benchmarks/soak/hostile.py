"""Clients that misbehave: they do not read, say nothing, send nonsense, or leave."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final

from benchmarks.loads import prompt
from benchmarks.soak.crowd import Workload, World
from benchmarks.soak.wire import JSON, NDJSON, Cut, NoAnswer, Wire, code_of
from benchmarks.soak.workloads import completion

_MIB: Final = 1 << 20


async def stalled_reader(world: World) -> None:
    """A large answer, streamed or not, of which nothing but its head is read for a minute."""
    body = completion(world.model(), max_tokens=5000, n=16, logprobs=random.choice((0, 5)))
    body["stream"] = random.random() < 0.5
    async with Wire(world.port) as wire:
        wire.send("POST", "/v1/completions", json.dumps(body).encode())
        head = await wire.head()
        if head.status != 200:
            refusal = b"".join([piece async for piece in wire.chunks(head)])
            world.tally.answer("stalled reader", head.status, code_of(refusal))
            return
        world.tally.answer("stalled reader", 200)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the socket fills up
        await asyncio.sleep(random.uniform(20.0, 60.0))


async def stalled_bulk(world: World) -> None:
    """NDJSON from a client that sends for ever and reads nothing."""
    async with Wire(world.port) as wire:
        path = f"/v1/score?model={random.choice(world.models)}&per_character=true&top=20"
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {NDJSON}\r\n"
        wire.writer.write(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
        line = json.dumps("a" * 1000).encode() + b"\n"
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(random.uniform(15.0, 40.0)):
                while True:
                    wire.writer.write(b"%x\r\n%s\r\n" % (len(line), line))
                    await wire.writer.drain()  # waits once the server takes no more
        world.tally.answer("stalled bulk", "held")


async def silent(world: World) -> None:
    """A connection that says nothing, or half a head, for longer than anybody waits."""
    async with Wire(world.port) as wire:
        half = (b"", b"G", b"POST /v1/score HTTP/1.1\r\nhost: 127.0.0.1\r\nx-")
        wire.writer.write(random.choice(half))
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(10.0, 40.0)):
                answered = await wire.reader.read(4096)
                said = answered.split(b" ")[1].decode() if answered else "closed"
                world.tally.answer("silent", said)
                return
        world.tally.answer("silent", "held")


@cache
def _shapes() -> dict[str, Callable[[str, int], bytes]]:
    """Bodies of about ``size`` bytes for a field, by their shape."""

    def of(element: str) -> Callable[[str, int], bytes]:
        def made(field: str, size: int) -> bytes:
            many = ",".join([element] * max(1, size // (len(element) + 1)))
            return f'{{"{field}":[{many}]}}'.encode()

        return made

    def keys(field: str, size: int) -> bytes:
        return ("{" + ",".join(f'"k{n}":1' for n in range(size // 12)) + "}").encode()

    surrogate = "\\ud800"
    elements = ("1", "true", "[]", "{}", "null", '""', "[1]", "-1", '"a"', "1e999")
    return {
        **{element: of(element) for element in elements},
        "keys": keys,
        "digits": lambda field, size: f'{{"{field}":{"9" * size}}}'.encode(),
        "deep": lambda field, size: f'{{"{field}":{"[" * size}'.encode(),
        "text": lambda field, size: f'{{"{field}":"{"a" * size}"}}'.encode(),
        "escapes": lambda field, size: f'{{"{field}":"{surrogate * (size // 6)}"}}'.encode(),
        "bytes": lambda field, size: b"\xff" * size,
    }


_TARGETS: Final = (
    ("/v1/completions", ("prompt", "stop", "logit_bias", "model")),
    ("/v1/score", ("input",)),
    ("/v1/rank", ("candidates", "prompt")),
    ("/v1/jobs", ("name", "training", "tags")),
)


async def hostile_json(world: World) -> None:
    """A body of some hostile shape, mostly small, now and then 16 MiB."""
    path, fields = random.choice(_TARGETS)
    size = random.choices((1000, 64 << 10, _MIB, 16 * _MIB), (4, 3, 2, 1))[0]
    shape = random.choice(tuple(_shapes()))
    body = await asyncio.to_thread(_shapes()[shape], random.choice(fields), size)
    async with Wire(world.port) as wire:
        await wire.ask(world.tally, "hostile json", "POST", path, body)


async def hostile_lines(world: World) -> None:
    """NDJSON of one hostile line after another."""
    made = random.choice(tuple(_shapes().values()))
    line = await asyncio.to_thread(made, "input", random.choice((1000, 64 << 10, _MIB)))
    async with Wire(world.port) as wire:
        path = f"/v1/score?model={random.choice(world.models)}"
        body = (line + b"\n") * 3
        await wire.ask(world.tally, "hostile lines", "POST", path, body, {"content-type": NDJSON})


async def leaves(world: World) -> None:
    """A client that goes away at some moment of a request or its answer."""
    body = json.dumps(completion(world.model(), max_tokens=50_000, stream=random.random() < 0.5))
    sent = body.encode()
    async with Wire(world.port) as wire:
        if random.random() < 0.3:
            sent, length = sent[: len(sent) // 2], {"content-length": str(len(sent))}
            wire.send("POST", "/v1/completions", sent, length)
        else:
            wire.send("POST", "/v1/completions", sent)
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.0, 0.6)):
                await wire.reader.read()
        world.tally.answer("leaves", "left")


_ODD: Final[tuple[tuple[str, bytes, dict[str, str]], ...]] = (
    ("/v1/score", b'"a"\n', {"content-type": NDJSON, "content-encoding": "gzip"}),
    ("/v1/score", b'"a"\n', {"content-type": NDJSON, "content-encoding": "br"}),
    ("/v1/score", b'{"input": "a"}', {"content-type": JSON, "content-encoding": "deflate"}),
    ("/v1/score", b'{"input": "\xe9"}', {"content-type": JSON}),
    ("/v1/score", b'{"input": "a"}', {"content-type": f"{JSON}; charset=latin-1"}),
    ("/v1/score", b"input=a", {"content-type": "application/x-www-form-urlencoded"}),
    ("/v1/score", b'{"input": "a"}', {"host": "elsewhere.example.org"}),
    ("/v1/score", b'{"input": "a"}', {"origin": "http://elsewhere.example.org"}),
    ("/v1/completions", b"{}", {"content-length": str(1 << 40)}),
    ("/v1/jobs", b"[" + b"1," * (2 * _MIB) + b"1]", {}),
    ("/nowhere", b"{}", {}),
)
_RAW: Final = (
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.9\r\nhost: 127.0.0.1\r\n\r\n",
    b"POST /v1/score HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
)


async def encodings(world: World) -> None:
    """Wrong encodings, lengths, hosts and protocols."""
    async with Wire(world.port) as wire:
        if random.random() < 0.3:
            wire.writer.write(random.choice(_RAW))
            with suppress(TimeoutError):
                async with asyncio.timeout(15.0):
                    line = (await wire.reader.readline()).split()
                    said = line[1].decode("latin-1")[:3] if len(line) > 1 else "closed"
                    world.tally.answer("not http", said)
            return
        path, body, headers = random.choice(_ODD)
        if "content-length" in headers:
            wire.send("POST", path, body, headers)
            head = await wire.head()
            told = b"".join([piece async for piece in wire.chunks(head)])
            world.tally.answer("encodings", head.status, code_of(told))
        else:
            await wire.ask(world.tally, "encodings", "POST", path, body, headers)


async def burst(world: World) -> None:
    """A crowd that comes at once: more requests than there are rows."""

    async def one() -> None:
        with suppress(OSError, TimeoutError, NoAnswer, Cut):
            async with asyncio.timeout(60.0), Wire(world.port) as wire:
                body = {"model": world.model(), "prompt": prompt(20), "max_tokens": 50}
                await wire.ask(world.tally, "burst", "POST", "/v1/completions", body)

    await asyncio.gather(*(one() for _ in range(random.choice((50, 200, 600)))))


WORKLOADS: Final = (
    Workload("stalled reader", stalled_reader, 8, pause=0.5, limit=180.0, polite=False),
    Workload("stalled bulk", stalled_bulk, 3, limit=180.0, polite=False),
    Workload("silent", silent, 40, pause=0.5, limit=60.0, polite=False),
    Workload("hostile json", hostile_json, 2, pause=1.0),
    Workload("hostile lines", hostile_lines, 1, pause=1.0),
    Workload("leaves", leaves, 4, pause=0.5, polite=False),
    Workload("encodings", encodings, 1, pause=0.5, polite=False),
    Workload("burst", burst, 1, pause=30.0, polite=False),
)
