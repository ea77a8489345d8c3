"""``charloom bench``: compare the engine with a plain ``nn.LSTM`` loop in one process.

Takes a network, gives one ``Result`` per measurement: characters per second for writing
and for scoring at several numbers of rows, the same with the loop that most people write
first, and the floors of this machine. All run in one process and, by default, one thread.
Engine and plain loop take turns, so that a noisy machine is noisy for both; each figure
is a median of rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final, Literal

import numpy as np
import torch
from torch import nn

from ..charlm.decoder import Decoder
from ..charlm.network import CharNetwork
from ..charlm.number_format import Precision
from ..charlm.sampling import Sampling
from ..charlm.vocabulary import RESERVED, Ids
from .engine import Engine
from .floors import multiply_adds_per_second, streaming_seconds
from .piece import Piece
from .scheduler import Limits
from .sequence import Request

Task = Literal["writing", "scoring"]

_Side = Callable[[int, int, float], float]

_ROUNDS: Final = 3
_RECORDS: Final = 2000
_LENGTHS: Final = (20, 200)  # of a record: least, most
_ENDLESS: Final = 1_000_000  # symbols: no text gets this far
_UNLIMITED: Final = 10**12  # waiting symbols
_WARM_UP: Final = 0.2  # of a round, not counted


@dataclass(frozen=True)
class Result:
    """Characters per second of the engine, of the plain loop and of the two floors."""

    task: Task
    rows: int
    threads: int
    engine: float
    plain: float
    streaming: float
    """How often the weights can be read per second, times the rows that share each read.

    Scoring knows the next symbols in advance and goes layer by layer: it reads a layer's
    recurrent weights again and again from the nearest cache, the others once for many
    symbols.
    """
    arithmetic: float
    """How many characters per second the multiplications and additions allow."""

    @property
    def times_plain(self) -> float:
        return self.engine / self.plain

    @property
    def floor(self) -> float:
        """Characters per second that the tighter floor allows."""
        return min(self.streaming, self.arithmetic)

    @property
    def share_of_floor(self) -> float:
        return self.engine / self.floor


@dataclass(frozen=True, eq=False)
class _Network:
    key: str
    decoder: Decoder


class _Count:
    """A sink that counts characters and stores nothing."""

    def __init__(self) -> None:
        self.characters = 0

    @property
    def full(self) -> bool:
        return False

    def push(self, piece: Piece) -> None:
        self.characters += len(piece.ids) + len(piece.read_logprobs)

    def fail(self, error: Exception) -> None:
        """Closing the engine ends a measurement."""


def measure(
    network: CharNetwork,
    precision: Precision,
    *,
    rows: Sequence[int],
    threads: Sequence[int] = (1,),
    seconds: float = 0.3,
) -> Iterator[Result]:
    """Yield results as they are measured; ``seconds`` is the time of one round of one side."""
    packed = _Network("bench", Decoder.from_network(network.eval(), precision))
    records = _records(network.symbols, _RECORDS)
    before = torch.get_num_threads()
    floors = _floors(network, precision)
    sides: dict[Task, tuple[_Side, _Side]] = {
        "writing": (partial(_write, packed), partial(_plain_write, network)),
        "scoring": (partial(_score, packed, records), partial(_plain_score, network, records)),
    }
    try:
        for count, (task, (ours, theirs)), size in product(threads, sides.items(), rows):
            torch.set_num_threads(count)
            engine, plain = _interleaved(
                partial(ours, size, count, seconds), partial(theirs, size, count, seconds)
            )
            yield Result(task, size, count, engine, plain, *floors(task, size, count))
    finally:
        torch.set_num_threads(before)


def _interleaved(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    pairs = [(one(), other()) for _ in range(_ROUNDS)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def _floors(
    network: CharNetwork, precision: Precision
) -> Callable[[Task, int, int], tuple[float, float]]:
    """(task, rows, threads) -> characters per second by the streaming and the arithmetic floor."""
    config, size = network.config, 1 if precision == "int8" else 4
    recurrent = config.gates * config.hidden_size * config.hidden_size
    weights = recurrent * (2 * config.layers - 1) + network.symbols * config.hidden_size
    streaming: dict[Task, float] = {
        "writing": streaming_seconds(size * weights),
        "scoring": config.layers * streaming_seconds(size * recurrent),
    }
    rate = multiply_adds_per_second(integers=precision == "int8")
    return lambda task, rows, threads: (
        rows / streaming[task],
        min(rows, threads) * rate / weights,
    )


def _engine(rows: int, threads: int) -> Engine:
    return Engine(Limits(rows=rows, waiting_symbols=_UNLIMITED), threads=threads)


def _write(network: _Network, rows: int, threads: int, seconds: float) -> float:
    engine, count = _engine(rows, threads), _Count()
    none = np.zeros(0, dtype=np.int32)
    request = Request((none,), Sampling(seed=1), _ENDLESS, choices=rows, boundary=False)
    engine.submit_to(count, request, network)
    for share in (_WARM_UP, 1.0):
        start, had = time.perf_counter(), count.characters
        while (taken := time.perf_counter() - start) < seconds * share and engine.tick():
            pass
    engine.close()
    return (count.characters - had) / taken


def _score(network: _Network, records: list[Ids], rows: int, threads: int, seconds: float) -> float:
    engine, count = _engine(rows, threads), _Count()
    request = Request(tuple(records), max_symbols=0, scored=True, closed=True)
    start = time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        if not engine.busy:
            engine.submit_to(count, request, network)
        engine.tick()
    engine.close()
    return count.characters / taken


def _records(symbols: int, count: int) -> list[Ids]:
    """Records of random characters."""
    random = np.random.default_rng(1)
    least, most = _LENGTHS
    return [
        random.integers(RESERVED, symbols, random.integers(least, most + 1)).astype(np.int32)
        for _ in range(count)
    ]


def _parts(network: CharNetwork) -> tuple[nn.Embedding, nn.RNNBase, nn.Linear]:
    return network.embedding, network.recurrent, network.output


@torch.inference_mode()
def _plain_write(network: CharNetwork, rows: int, threads: int, seconds: float) -> float:
    """The loop most people write first: embedding, cell, linear, softmax, multinomial."""
    embedding, cell, output = _parts(network)
    chars_B1 = torch.full((rows, 1), RESERVED)
    state, written = None, 0
    start = time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        hidden, state = cell(embedding(chars_B1), state)
        chars_B1 = torch.multinomial(torch.softmax(output(hidden[:, 0]), dim=1), 1)
        written += rows
    return written / taken


@torch.inference_mode()
def _plain_score(
    network: CharNetwork, records: list[Ids], rows: int, threads: int, seconds: float
) -> float:
    """Padded batches through the cell, then log-softmax; padding is not counted."""
    embedding, cell, output = _parts(network)
    scored, start, place = 0, time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        batch = [torch.from_numpy(each) for each in records[place : place + rows]]
        place = (place + rows) % len(records)
        lengths = [len(record) for record in batch]
        chars_BT = nn.utils.rnn.pad_sequence(batch, batch_first=True).long()
        hidden, _ = cell(embedding(chars_BT))
        logprobs = torch.log_softmax(output(hidden[:, :-1]), dim=2)
        logprobs.gather(2, chars_BT[:, 1:, None]).sum().item()
        scored += sum(lengths)
    return scored / taken
