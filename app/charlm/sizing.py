"""Choose a network and a training from a corpus, a budget and a machine's speed.

The rules come from measured runs (docs/decisions/0006). At these sizes it is best to
train on about 2.5 characters per weight, in many small updates. A network may have
several weights per character of the corpus if dropout grows with the number of passes.

Arithmetic only: ``speed.py`` measures the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from .cells import Cell
from .corpus.format import CorpusFormat
from .network_config import NetworkConfig
from .schedule import TrainingConfig

SIZES: Final = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

# From the measured runs of docs/decisions/0006-sizing.md.
_CHARACTERS_A_WEIGHT: Final = 2.5
_WEIGHTS_A_CHARACTER: Final = 8.0
_MOST_PASSES: Final = 60
_OPERATIONS: Final = 6  # per weight: multiply and add, once forward and twice backward
_DROPOUT_BY_PASSES: Final = ((2.5, 0.0), (6.0, 0.1), (12.0, 0.2), (25.0, 0.3), (40.0, 0.4))
_MOST_DROPOUT: Final = 0.5
_EMBEDDING_BY_SYMBOLS: Final = ((300, 64), (3000, 96))
_MOST_EMBEDDING: Final = 128
_CHARACTERS_A_STEP: Final = 640  # of records, in all rows of a step together
_LINE_WINDOWS: Final = (8, 128)  # least, most
_LINE_ROWS: Final = (16, 128)  # least, most
_TEXT_WINDOW: Final = 100
_SHORT_TEXT: Final = (10_000, 50)  # up to 10,000 characters, a window of 50
_TEXT_ROWS_BY_READABLE: Final = ((2e7, 16), (2e8, 32))
_MOST_TEXT_ROWS: Final = 64
_RATES: Final[Mapping[CorpusFormat, float]] = {"text": 0.004, "lines": 0.003}
_WIDE: Final = 512  # a wider network takes a lower rate


@dataclass(frozen=True)
class CorpusFacts:
    """The facts that the choice depends on; lengths and sizes in characters."""

    format: CorpusFormat
    train_characters: int
    symbols: int
    mean_length: float  # of a record; unused for running text
    typical_length: int  # 95 in 100 records are shorter


@dataclass(frozen=True)
class Chosen:
    """Fields of network and training whose values were chosen together, and why."""

    fields: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Choice:
    """A network and a training; ``passes`` is the expected number of passes over the corpus."""

    network: NetworkConfig
    training: TrainingConfig
    passes: float
    chosen: tuple[Chosen, ...]


def choose(
    facts: CorpusFacts, budget_seconds: float, speed: float, *, cell: Cell = "lstm", seed: int = 1
) -> Choice:
    """Choose network, rows, window, rate and dropout for a budget.

    ``speed`` is in operations per second, as returned by ``measure_speed``.
    """
    size, limit = _size(facts, budget_seconds * speed, cell)
    network = NetworkConfig(cell, 1, size, _embedding(facts.symbols))
    readable = budget_seconds * speed / operations(network, facts.symbols)
    passes = min(readable / facts.train_characters, float(_MOST_PASSES))
    dropout = next((rate for most, rate in _DROPOUT_BY_PASSES if passes < most), _MOST_DROPOUT)
    network = replace(network, dropout=dropout)
    rows, window = _rows_and_window(facts, readable)
    training = TrainingConfig(
        budget_seconds=budget_seconds,
        max_epochs=_MOST_PASSES,
        batch_size=rows,
        window=window,
        learning_rate=_rate(facts.format, network),
        seed=seed,
    )
    weights = network.parameters(facts.symbols)
    return Choice(network, training, passes, _reasons(weights, limit, facts.symbols, passes))


def _reasons(weights: int, limit: str, symbols: int, passes: float) -> tuple[Chosen, ...]:
    return (
        Chosen(("layers", "hidden_size"), f"{weights:,} weights; limited by {limit}"),
        Chosen(("embedding_size",), f"for {symbols:,} symbols"),
        Chosen(("dropout",), f"because the text is read about {_times(passes)}"),
        Chosen(("batch_size", "window"), "small batches, so that there are many updates"),
        Chosen(("learning_rate",), "rises over the first steps, falls to zero at the end"),
    )


def operations(network: NetworkConfig, symbols: int) -> float:
    """Operations to train on one character: all weights except the embedding, a lookup."""
    output = symbols * network.hidden_size
    return _OPERATIONS * float(network.recurrent_weights + output)


def _size(facts: CorpusFacts, affordable: float, cell: Cell) -> tuple[int, str]:
    """The hidden size that ``affordable`` operations in total allow, and what limits it."""
    most_weights = _WEIGHTS_A_CHARACTER * facts.train_characters
    by_budget = by_corpus = SIZES[0]
    for size in SIZES:
        candidate = NetworkConfig(cell, 1, size, _embedding(facts.symbols))
        weights = candidate.recurrent_weights
        readable = affordable / operations(candidate, facts.symbols)
        if readable >= _CHARACTERS_A_WEIGHT * weights:
            by_budget = size
        if weights <= most_weights:
            by_corpus = size
    if by_budget <= by_corpus:
        return by_budget, "the budget"
    return by_corpus, "the size of the corpus"


def _embedding(symbols: int) -> int:
    sizes = (size for most, size in _EMBEDDING_BY_SYMBOLS if symbols <= most)
    return next(sizes, _MOST_EMBEDDING)


def _rows_and_window(facts: CorpusFacts, readable: float) -> tuple[int, int]:
    """Rows, a power of two, and window; longer trainings can afford larger, smoother steps."""
    if facts.format == "lines":
        window = _clamped(facts.typical_length, _LINE_WINDOWS)
        rows = _CHARACTERS_A_STEP / max(1.0, min(facts.mean_length, window))
        return _clamped(_power_of_two(rows), _LINE_ROWS), window
    short, short_window = _SHORT_TEXT
    window = _TEXT_WINDOW if facts.train_characters > short else short_window
    by_readable = (rows for most, rows in _TEXT_ROWS_BY_READABLE if readable < most)
    return next(by_readable, _MOST_TEXT_ROWS), window


def _clamped(value: int, bounds: tuple[int, int]) -> int:
    least, most = bounds
    return min(most, max(least, value))


def _rate(form: CorpusFormat, network: NetworkConfig) -> float:
    rate = _RATES[form] * network.descriptor.rate
    if network.hidden_size > _WIDE:
        rate *= (_WIDE / network.hidden_size) ** 0.5
    return round(rate, 5)


def _power_of_two(value: float) -> int:
    power = 1
    while power * 1.5 < value:
        power *= 2
    return power


def _times(passes: float) -> str:
    return "once" if passes < 1.5 else f"{passes:.0f} times"
