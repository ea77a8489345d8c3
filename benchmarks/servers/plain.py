"""The server most people write first: FastAPI, one ``nn.LSTM`` loop per request."""

from __future__ import annotations

from collections.abc import Generator

import torch
from fastapi import FastAPI
from starlette.responses import Response

from benchmarks.servers.loop import Asked, Loaded, arguments, completions, draw, serve


def characters(loaded: Loaded, asked: Asked) -> Generator[str, None, None]:
    """Embedding, cell, linear, softmax, multinomial, one character at a time."""
    network = loaded.network
    ids, state = loaded.ids(asked.prompt), None
    for _ in range(asked.max_tokens):
        with torch.inference_mode():
            hidden, state = network.recurrent(network.embedding(torch.tensor([ids])), state)
            ids = [draw(network.output(hidden[:, -1]))]
        yield loaded.vocabulary.decode(ids)


def main() -> None:
    given = arguments()
    loaded, app = Loaded(given.weights), FastAPI()

    @app.post("/v1/completions")
    def complete(asked: Asked) -> Response:
        return completions(characters(loaded, asked), stream=asked.stream)

    serve(app, given.port)


if __name__ == "__main__":
    main()
