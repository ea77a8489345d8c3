"""What the peers share: the weights, the prompt's ids, one event of a stream."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from app.charlm.network import CharNetwork
from app.charlm.vocabulary import BOUNDARY, RESERVED, Vocabulary
from app.store.artifact import read

DONE = b"data: [DONE]\n\n"


class Asked(BaseModel):
    """The fields of a completion that the peers support."""

    prompt: str = ""
    max_tokens: int = 100
    stream: bool = False


class Loaded:
    """The network of an artifact, ready for inference in one thread."""

    def __init__(self, weights: Path) -> None:
        torch.set_num_threads(1)
        artifact = read(weights.read_bytes())
        self.vocabulary: Vocabulary = artifact.vocabulary
        self.network: CharNetwork = artifact.network().eval()

    def ids(self, prompt: str) -> list[int]:
        """The ids of the boundary and the prompt."""
        return [BOUNDARY, *self.vocabulary.encode(prompt).tolist()]


def arguments() -> argparse.Namespace:
    """``--weights`` and ``--port``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    return parser.parse_args()


def event(text: str) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n\n"


def completions(characters: Generator[str, None, None], *, stream: bool) -> Response:
    """The answer with ``characters``; a stream draws them in a thread while others are served."""
    if not stream:
        return JSONResponse({"choices": [{"text": "".join(characters)}]})

    async def events() -> AsyncGenerator[bytes, None]:
        async for character in iterate_in_threadpool(characters):
            yield event(character)
        yield DONE

    return StreamingResponse(events(), media_type="text/event-stream")


def draw(logits_1V: torch.Tensor) -> int:
    """One id from the network's own distribution; never a reserved one."""
    logits_1V[:, :RESERVED] = -torch.inf
    return int(torch.multinomial(torch.softmax(logits_1V, dim=1), 1))


def serve(app: FastAPI, port: int) -> None:
    """Uvicorn with the parser and the event loop that Charloom uses: httptools and uvloop."""
    uvicorn.run(
        app, host="127.0.0.1", port=port, http="httptools", loop="uvloop", log_level="warning"
    )
