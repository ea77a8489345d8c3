"""LitServe with dynamic batching and streaming over the same ``nn.LSTM`` loop.

Annotations are not postponed, because LitServe reads the request's class from the method.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import litserve
import torch
from torch.nn.utils.rnn import pad_sequence

from app.charlm.vocabulary import RESERVED
from benchmarks.servers.loop import DONE, Asked, Loaded, arguments, event

ROWS = 64


class Completions(litserve.LitAPI):
    """Requests that arrive together are one batch, which lasts as long as its longest request."""

    def __init__(self, weights: Path) -> None:
        super().__init__(
            max_batch_size=ROWS, batch_timeout=0.005, api_path="/v1/completions", stream=True
        )
        self.weights = weights

    def setup(self, device: str) -> None:
        self.loaded = Loaded(self.weights)

    def decode_request(self, request: Asked) -> Asked:
        return request

    def batch(self, inputs: list[Asked]) -> list[Asked]:
        return inputs

    def unbatch(self, output: Generator[list[str], None, None]) -> Generator[list[str], None, None]:
        yield from output

    def predict(self, inputs: list[Asked]) -> Generator[list[str], None, None]:
        network = self.loaded.network
        prompts = [torch.tensor(self.loaded.ids(asked.prompt)) for asked in inputs]
        rows = torch.arange(len(prompts))
        with torch.inference_mode():
            # Shorter prompts are padded at the end, so their states are wrong. That does not
            # matter here: only speed is measured.
            hidden, state = network.recurrent(
                network.embedding(pad_sequence(prompts, batch_first=True))
            )
            hidden = hidden[rows, torch.tensor([len(prompt) - 1 for prompt in prompts])]
            for _ in range(max(asked.max_tokens for asked in inputs)):
                logits = network.output(hidden)
                logits[:, :RESERVED] = -torch.inf
                ids_B1 = torch.multinomial(torch.softmax(logits, dim=1), 1)
                yield [self.loaded.vocabulary.decode([i]) for i in ids_B1[:, 0].tolist()]
                out, state = network.recurrent(network.embedding(ids_B1), state)
                hidden = out[:, 0]

    def encode_response(
        self, output: Generator[list[str], None, None], **_: Any
    ) -> Generator[list[str], None, None]:
        for texts in output:
            yield [event(text).decode() for text in texts]
        yield [DONE.decode()] * len(texts)


def main() -> None:
    given = arguments()
    server = litserve.LitServer(Completions(given.weights), accelerator="cpu", timeout=600)
    server.run(
        host="127.0.0.1", port=given.port, generate_client_file=False, log_level="warning",
        num_api_servers=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
