"""Every value of a training that was not asked for, and the memory it will take.

Takes what is known of a corpus, what was asked, and the machine's speed; gives
the whole network and training, and says why. The command line, a job when it is
submitted and the training process all settle here. Arithmetic only: reads no
text and starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from app.charlm.network import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.charlm.sizing import Chosen, CorpusFacts, choose
from app.errors import InvalidInput

DEFAULT_BUDGET_SECONDS: Final = 180.0
AS_ASKED: Final = "as asked"

_NUMBER: Final = 4  # bytes of a float32
_PROCESS: Final = 400 << 20  # Python, torch and numba before anything is read
_CHARACTER: Final = 16  # bytes for each character of a corpus that is held in memory
_HELD: Final = 1 << 25  # characters; of a larger corpus the ids lie in a file
_OPTIMIZER: Final = {"sgd": 0, "adam": 2, "adamw": 2}  # numbers kept for each weight


@dataclass(frozen=True)
class Settled:
    """A training with nothing left open."""

    network: NetworkConfig
    training: TrainingConfig
    chosen: tuple[Chosen, ...]


@dataclass(frozen=True)
class Memory:
    """An estimate of what a training needs, in bytes."""

    weights: int  # with gradients, the optimizer's numbers and copies
    activations: int
    corpus: int
    process: int = _PROCESS

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.corpus + self.process


def settle(
    facts: CorpusFacts,
    asked_network: dict[str, Any],
    asked_training: dict[str, Any],
    *,
    speed: float,
    seed: int,
) -> Settled:
    """Choose what was not asked for; ``speed`` as ``sizing.measure_speed`` gives it.

    Values by the names of ``NetworkConfig`` and ``TrainingConfig``; None asks for
    nothing. Of the limits, those that were asked for hold alone. Raises InvalidInput.
    """
    asked_network = {name: value for name, value in asked_network.items() if value is not None}
    asked_training = {name: value for name, value in asked_training.items() if value is not None}
    limits = {"budget_seconds", "max_epochs", "max_steps"} & set(asked_training)
    budget = asked_training.get("budget_seconds") or DEFAULT_BUDGET_SECONDS
    choice = choose(
        facts, float(budget), speed, cell=asked_network.get("cell") or "lstm", seed=seed
    )
    network = _replaced(choice.network, asked_network, "network")
    training = choice.training
    if limits:
        training = replace(training, max_epochs=asked_training.get("max_epochs"), max_steps=None)
        if "budget_seconds" not in limits:
            # Nothing is left to the clock: the training ends by count.
            asked_training["budget_seconds"] = None
        elif limits == {"budget_seconds"}:
            training = replace(training, max_epochs=choice.training.max_epochs)
    training = _replaced(training, asked_training, "training")
    asked = asked_network | asked_training
    wished = tuple(
        Chosen(name.replace("_", " "), str(value), AS_ASKED)
        for name, value in asked.items()
        if value is not None
    )
    return Settled(network, training, (*choice.chosen, *wished))


def memory_needed(
    network: NetworkConfig, training: TrainingConfig, symbols: int, characters: int
) -> Memory:
    """What a training will need at its peak, within about a quarter.

    For each weight: itself, its gradient, two packed copies for the products,
    the optimizer's numbers, the best copy, and while a checkpoint is written
    all that it holds again. For each place of a batch: what backpropagation keeps
    of every layer, and three numbers for each symbol.
    """
    kept = 1 + _OPTIMIZER[training.optimizer] + 1
    weights = network.parameters(symbols) * (2 * kept + 3) * _NUMBER
    layer = (2 * network.gates + 4) * network.hidden_size
    place = network.layers * layer + network.embedding_size + 3 * symbols
    activations = training.batch_size * training.window * place * _NUMBER
    corpus = min(characters, _HELD) * _CHARACTER
    return Memory(weights, activations, corpus)


def check_memory(memory: Memory, limit: int) -> None:
    """Refuse what cannot fit; raises InvalidInput with the numbers, naming what is largest."""
    if memory.total <= limit:
        return
    if memory.activations >= memory.weights:
        param, advice = "training.batch_size", "a smaller batch_size or window"
    else:
        param, advice = "network.hidden_size", "a smaller hidden_size or fewer layers"
    raise InvalidInput(
        f"This training would need about {_size(memory.total)} of memory: {_size(memory.weights)} "
        f"for weights and optimizer, {_size(memory.activations)} for a batch, "
        f"{_size(memory.corpus)} for the text, {_size(memory.process)} for the program. A job may "
        f"use {_size(limit)}. Ask for {advice}.",
        param=param,
        code="does_not_fit",
    )


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def _replaced(config: Any, asked: dict[str, Any], group: str) -> Any:
    names = set(config.__dataclass_fields__)
    for name in asked:
        if name not in names:
            raise InvalidInput(
                f"{group}.{name} is not something that can be set.", param=f"{group}.{name}"
            )
    return replace(config, **asked)
