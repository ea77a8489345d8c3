"""Choosing a network and a training from a corpus, a budget and a machine's speed.

The rules come from measured runs (docs/decisions/0006): at these sizes a
training is best when it reads about 2.5 characters for each weight, in many
small updates; a network may have several weights for each character of the
corpus as long as dropout grows with the number of passes.

``measure_speed`` tells the machine's speed; ``choose`` is arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from app.charlm.network import GATES, Cell, CharNetwork, NetworkConfig
from app.charlm.optimisation import cross_entropy
from app.charlm.schedule import TrainingConfig
from app.charlm.windows import CorpusFormat

SIZES: Final = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

_CHARACTERS_A_WEIGHT: Final = 2.5
_WEIGHTS_A_CHARACTER: Final = 8.0
_MOST_PASSES: Final = 60
_OPERATIONS: Final = 6  # multiply and add, once forward and twice backward, for each weight
_DROPOUT_BY_PASSES: Final = ((2.5, 0.0), (6.0, 0.1), (12.0, 0.2), (25.0, 0.3), (40.0, 0.4))


@dataclass(frozen=True)
class CorpusFacts:
    """What the choice depends on; lengths and sizes in characters."""

    format: CorpusFormat
    train_characters: int
    symbols: int
    mean_length: float  # of a record; of no account for a running text
    typical_length: int  # the length that 95 in 100 records stay below


@dataclass(frozen=True)
class Chosen:
    """One value and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """A network and a training; ``passes`` over the corpus as expected."""

    network: NetworkConfig
    training: TrainingConfig
    passes: float
    chosen: tuple[Chosen, ...]


def measure_speed(clock: Callable[[], float], device: torch.device, seconds: float = 1.0) -> float:
    """Operations a second of training on this machine, tried out for about ``seconds``."""
    config = NetworkConfig("lstm", 1, 384, 64)
    network = CharNetwork(config, 64).to(device).train()
    chars_BT = torch.zeros(16, 64, dtype=torch.long, device=device)
    state_BLS = network.initial_state(16)

    def step() -> None:
        logits_BTV, _ = network(chars_BT, state_BLS)
        torch.autograd.backward(cross_entropy(logits_BTV.flatten(0, 1), chars_BT.flatten()))
        network.zero_grad()
        network.output.bias.sum().item()  # waits for a GPU to be done

    step()
    began, steps = clock(), 0
    while steps == 0 or clock() - began < seconds:
        step()
        steps += 1
    work = steps * chars_BT.numel() * _work(config, 64)
    return work / max(clock() - began, 1e-9)


def choose(
    facts: CorpusFacts, budget_seconds: float, speed: float, *, cell: Cell = "lstm", seed: int = 1
) -> Choice:
    """Network, rows, window, rate and dropout for a budget; ``speed`` as measured."""
    embedding = _embedding(facts.symbols)
    most_weights = _WEIGHTS_A_CHARACTER * facts.train_characters
    by_budget, by_corpus = SIZES[0], SIZES[0]
    for size in SIZES:
        candidate = NetworkConfig(cell, 1, size, embedding)
        weights = _recurrent_weights(candidate)
        readable = budget_seconds * speed / _work(candidate, facts.symbols)
        if readable >= _CHARACTERS_A_WEIGHT * weights:
            by_budget = size
        if weights <= most_weights:
            by_corpus = size
    size = min(by_budget, by_corpus)
    network = NetworkConfig(cell, 1, size, embedding)
    readable = budget_seconds * speed / _work(network, facts.symbols)
    passes = min(readable / facts.train_characters, float(_MOST_PASSES))
    dropout = next((rate for most, rate in _DROPOUT_BY_PASSES if passes < most), 0.5)
    network = NetworkConfig(cell, 1, size, embedding, dropout)
    rows, window = _rows_and_window(facts, readable)
    training = TrainingConfig(
        budget_seconds=budget_seconds,
        max_epochs=_MOST_PASSES,
        batch_size=rows,
        window=window,
        learning_rate=_rate(facts.format, cell, size),
        seed=seed,
    )
    limit = "the budget" if by_budget <= by_corpus else "the size of the corpus"
    weights = network.parameters(facts.symbols)
    return Choice(
        network,
        training,
        passes,
        (
            Chosen("network", f"{cell} 1 × {size}", f"{weights:,} weights; limited by {limit}"),
            Chosen("embedding", str(embedding), f"for {facts.symbols:,} symbols"),
            Chosen("dropout", f"{dropout:g}", f"about {passes:.1f} passes over the corpus"),
            Chosen("rows × window", f"{rows} × {window}", "many small updates"),
            Chosen(
                "learning rate",
                f"{training.learning_rate:g}",
                "rises over the first steps, falls to zero at the end",
            ),
        ),
    )


def _work(network: NetworkConfig, symbols: int) -> float:
    """Operations for training on one character: all weights but the embedding's lookup."""
    output = symbols * network.hidden_size
    return _OPERATIONS * float(_recurrent_weights(network) + output)


def _recurrent_weights(network: NetworkConfig) -> int:
    gates = GATES[network.cell] * network.hidden_size
    return gates * (network.embedding_size + network.hidden_size)


def _embedding(symbols: int) -> int:
    return next((size for most, size in ((300, 64), (3000, 96)) if symbols <= most), 128)


def _rows_and_window(facts: CorpusFacts, readable: float) -> tuple[int, int]:
    """Rows a power of two; longer trainings can afford larger, smoother steps."""
    if facts.format == "lines":
        window = min(128, max(8, facts.typical_length))
        rows = 640 / max(1.0, min(facts.mean_length, window))
        return min(128, max(16, _power_of_two(rows))), window
    window = 100 if facts.train_characters > 10_000 else 50
    rows = 16 if readable < 2e7 else 32 if readable < 2e8 else 64
    return rows, window


def _rate(form: CorpusFormat, cell: Cell, size: int) -> float:
    rate = 0.004 if form == "text" else 0.003
    if cell == "rnn":
        rate /= 4  # no gate holds a plain network's gradients in check
    if size > 512:
        rate *= (512 / size) ** 0.5
    return round(rate, 5)


def _power_of_two(value: float) -> int:
    power = 1
    while power * 1.5 < value:
        power *= 2
    return power
