"""Clients that change what there is: aliases, imported and deleted models, datasets."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Final

from benchmarks.loads import prompt
from benchmarks.soak.crowd import Workload, World
from benchmarks.soak.wire import Wire
from benchmarks.soak.workloads import completion

_IMPORTED: Final = tuple(f"imported-{number}" for number in range(4))
_KEPT_VERSIONS: Final = 3
_BINARY: Final = {"content-type": "application/octet-stream"}
_PLAIN: Final = {"content-type": "text/plain"}


async def aliases(world: World) -> None:
    """Move ``live`` between two versions, and make and delete another alias."""
    path = f"/v1/models/{random.choice(world.models)}/aliases"
    async with Wire(world.port) as wire:
        body = {"version": random.choice((1, 2))}
        await wire.ask(world.tally, "aliases", "PUT", f"{path}/live", body)
        await wire.ask(world.tally, "aliases", "PUT", f"{path}/passing", body)
        await wire.ask(world.tally, "aliases", "DELETE", f"{path}/passing")


async def imports(world: World) -> None:
    """Import a file, use it at once, and delete what is older; now and then everything."""
    name = random.choice(_IMPORTED)
    async with Wire(world.port) as wire:
        status, answer = await wire.ask(
            world.tally, "imports", "POST", f"/v1/models?name={name}", world.file, _BINARY
        )
        if status != 201:
            return
        version = int(json.loads(answer)["version"])
        body = completion(f"{name}@{version}", max_tokens=5)
        await wire.ask(world.tally, "imports", "POST", "/v1/completions", body)
        if random.random() < 0.1:
            await wire.ask(world.tally, "imports", "DELETE", f"/v1/models/{name}")
        elif version > _KEPT_VERSIONS:
            path = f"/v1/models/{name}@{version - _KEPT_VERSIONS}"
            await wire.ask(world.tally, "imports", "DELETE", path)


async def wrong_imports(world: World) -> None:
    """Files that are no models, or only the first half of one."""
    size = len(world.file)
    wrong = random.choice((b"", b"no model", world.file[: size // 2], world.file[::-1]))
    async with Wire(world.port) as wire:
        path = "/v1/models?name=never"
        await wire.ask(world.tally, "wrong imports", "POST", path, wrong, _BINARY)


async def datasets(world: World) -> None:
    """Upload a text of one shape or another; delete all but the newest few."""
    texts = (
        lambda: "\n".join(prompt(8).replace("\n", "") for _ in range(3000)).encode(),
        lambda: prompt(200_000).encode(),
        lambda: b"a\n" * random.randrange(1 << 19, 1 << 20),
        lambda: b"\n" * random.randrange(1 << 20, 1 << 21),
        lambda: b"x" * random.randrange(1 << 20, 1 << 21),
        lambda: b"caf\xe9",
    )
    path = f"/v1/datasets?name=text-{random.randrange(1 << 30)}"
    async with Wire(world.port) as wire:
        await wire.ask(world.tally, "datasets", "POST", path, random.choice(texts)(), _PLAIN)
        status, listed = await wire.ask(world.tally, "datasets", "GET", "/v1/datasets?limit=20")
        if status == 200:
            for each in json.loads(listed)["data"][5:]:
                await wire.ask(world.tally, "datasets", "DELETE", f"/v1/datasets/{each['id']}")


async def slow_upload(world: World) -> None:
    """A text that comes in a kilobyte at a time, for up to half a minute."""
    pieces = [prompt(1000).encode() for _ in range(random.randrange(5, 60))]
    length = {"content-length": str(sum(map(len, pieces)))}
    async with Wire(world.port) as wire:

        async def send() -> None:
            for piece in pieces:
                wire.writer.write(piece)
                await asyncio.sleep(0.5)

        path = f"/v1/datasets?name=slow-{random.randrange(1 << 30)}&format=text"
        sending = asyncio.create_task(send())
        try:
            await wire.ask(world.tally, "slow upload", "POST", path, b"", _PLAIN | length)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


WORKLOADS: Final = (
    Workload("aliases", aliases, 1, pause=0.5),
    Workload("imports", imports, 1, pause=2.0),
    Workload("wrong imports", wrong_imports, 1, pause=5.0),
    Workload("datasets", datasets, 1, pause=3.0),
    Workload("slow upload", slow_upload, 1, pause=5.0),
)
