"""Plan a training: choose every open value with a reason, and estimate memory.

Takes the description of a text, the requested values and the machine's speed; returns the
complete network and training. The command line and submitted jobs both plan here, so the same
text gets the same network. Arithmetic only: reads no text and starts nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Protocol

from ..charlm.cells import Cell
from ..charlm.corpus.format import DEFAULT_FRACTION, CorpusFormat
from ..charlm.network_config import NetworkConfig
from ..charlm.schedule import DEFAULT_BUDGET_SECONDS, TrainingConfig
from ..charlm.sizing import Chosen, CorpusFacts, choose
from ..charlm.vocabulary import RESERVED
from ..errors import InvalidInput

#: What a training inherits from the network that it starts from.
SHAPE: Final = ("cell", "layers", "hidden_size", "embedding_size", "activation", "tied")
_LIMITS: Final = frozenset({"budget_seconds", "max_epochs", "max_steps"})

_NUMBER: Final = 4  # bytes of a float32
_PROCESS: Final = 400 << 20  # Python, torch and numba before anything is read
_CHARACTER: Final = 16  # bytes per character of a corpus in memory
_HELD: Final = 1 << 25  # characters in memory; the ids of a larger corpus are in a file
_OPTIMIZER: Final = {"sgd": 0, "adam": 2, "adamw": 2}  # numbers per weight


class Described(Protocol):
    """What is known about a text without reading it again: a profile or a dataset."""

    @property
    def format(self) -> CorpusFormat: ...
    @property
    def characters(self) -> int: ...
    @property
    def records(self) -> int: ...
    @property
    def symbols(self) -> int: ...  # distinct characters
    @property
    def typical_length(self) -> int: ...


class Base(Protocol):
    """A published version from which a training starts."""

    @property
    def id(self) -> str: ...
    @property
    def card(self) -> dict[str, Any]: ...  # Card.summary()


@dataclass(frozen=True)
class Wishes:
    """What the user requested; everything else is chosen.

    ``network`` and ``training`` have values by the field names of ``NetworkConfig`` and
    ``TrainingConfig``; None means not requested.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    validation_fraction: float = DEFAULT_FRACTION
    test_fraction: float = DEFAULT_FRACTION
    seed: int = 1


@dataclass(frozen=True)
class TrainingPlan:
    """A training with every value set: chosen with a reason, asked for, or from the base model."""

    network: NetworkConfig
    training: TrainingConfig
    chosen: tuple[Chosen, ...] = ()
    asked: tuple[str, ...] = ()
    inherited: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """Every field of network and training by its name."""
        return {**asdict(self.network), **asdict(self.training)}


@dataclass(frozen=True)
class Memory:
    """An estimate of what a training needs, in bytes."""

    weights: int  # with gradients, the optimizer's state and copies
    activations: int
    corpus: int
    process: int = _PROCESS

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.corpus + self.process


def plan_training(
    text: Described, wishes: Wishes, *, speed: float, base: Base | None = None
) -> TrainingPlan:
    """Choose what was not requested.

    ``speed`` is in operations per second (``measure_speed``); ``base`` determines the network's
    shape. Raises InvalidInput, naming the field.
    """
    facts = corpus_facts(text, wishes, base)
    shape = {} if base is None else _shape_of(base, wishes.network)
    plan = complete(
        facts, {**wishes.network, **shape}, wishes.training, speed=speed, seed=wishes.seed
    )
    asked = tuple(name for name in plan.asked if name not in shape)
    return replace(plan, asked=asked, inherited=tuple(shape))


def corpus_facts(text: Described, wishes: Wishes, base: Base | None = None) -> CorpusFacts:
    """The facts on which the choice depends, from a text's description."""
    held_out = wishes.validation_fraction + wishes.test_fraction
    return CorpusFacts(
        format=text.format,
        train_characters=max(1, round(text.characters * (1 - held_out))),
        symbols=max(text.symbols + RESERVED, base.card["symbols"] if base else 0),
        mean_length=text.characters / max(1, text.records),
        typical_length=max(1, text.typical_length),
    )


def most_symbols(text: Described, base: Base | None = None) -> int:
    """V at most: the base's symbols are kept, and all of the text's may be new."""
    return text.symbols + (base.card["symbols"] if base else RESERVED)


def complete(
    facts: CorpusFacts,
    asked_network: Mapping[str, Any],
    asked_training: Mapping[str, Any],
    *,
    speed: float,
    seed: int,
) -> TrainingPlan:
    """The plan for a corpus with these facts.

    Requested limits (budget, epochs, steps) replace the chosen ones, but a budget alone keeps the
    cap on epochs. Raises InvalidInput.
    """
    network_wishes = {name: value for name, value in asked_network.items() if value is not None}
    wishes = {name: value for name, value in asked_training.items() if value is not None}
    asked = tuple(network_wishes | wishes)
    budget = float(wishes.get("budget_seconds") or DEFAULT_BUDGET_SECONDS)
    cell: Cell = network_wishes.get("cell", "lstm")
    choice = choose(facts, budget, speed, cell=cell, seed=seed)
    training = _limited(choice.training, wishes)
    return TrainingPlan(
        _replaced(choice.network, network_wishes, "network"),
        _replaced(training, wishes, "training"),
        tuple(_without(choice.chosen, asked)),
        asked,
    )


def _without(chosen: Iterable[Chosen], asked: Collection[str]) -> Iterator[Chosen]:
    """What remains chosen of each group of fields."""
    for each in chosen:
        fields = tuple(name for name in each.fields if name not in asked)
        if fields:
            yield Chosen(fields, each.reason)


def _limited(chosen: TrainingConfig, wishes: Mapping[str, Any]) -> TrainingConfig:
    """The chosen configuration, without limits that the requested ones replace."""
    limits = _LIMITS & set(wishes)
    if not limits:
        return chosen
    if limits == {"budget_seconds"}:
        return chosen  # the cap on epochs stays
    # Without a budget the clock does not matter: the training ends by epochs or steps.
    budget = wishes.get("budget_seconds")
    epochs, steps = wishes.get("max_epochs"), wishes.get("max_steps")
    return replace(chosen, budget_seconds=budget, max_epochs=epochs, max_steps=steps)


def _shape_of(base: Base, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The shape that ``base`` determines; raises InvalidInput if another was requested."""
    shape = {name: base.card[name] for name in SHAPE}
    for name, value in shape.items():
        if asked.get(name) not in (None, value):
            raise InvalidInput(
                f"network.{name} must be {value}, as in the base_model {base.id}. Omit it, or "
                "omit base_model.",
                param=f"network.{name}",
                code="base_model_differs",
            )
    return shape


def memory_needed(
    network: NetworkConfig, training: TrainingConfig, symbols: int, characters: int
) -> Memory:
    """Estimate a training's peak memory, within about a quarter.

    For each weight: itself, its gradient, two packed copies for the matrix products, the
    optimizer's state, the best copy, and a second copy of all that a checkpoint holds while it
    is written. For each position of a batch: what backpropagation keeps of every layer, and
    three numbers per symbol.
    """
    kept = 1 + _OPTIMIZER[training.optimizer] + 1
    weights = network.parameters(symbols) * (2 * kept + 3) * _NUMBER
    layer = (2 * network.gates + 4) * network.hidden_size
    place = network.layers * layer + network.embedding_size + 3 * symbols
    activations = training.batch_size * training.window * place * _NUMBER
    corpus = min(characters, _HELD) * _CHARACTER
    return Memory(weights, activations, corpus)


def check_memory(memory: Memory, limit: int) -> None:
    """Raise InvalidInput, with figures and advice, if a training does not fit."""
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


def _replaced(config: Any, asked: Mapping[str, Any], group: str) -> Any:
    names = set(config.__dataclass_fields__)
    for name in asked:
        if name not in names:
            raise InvalidInput(
                f"{group}.{name} is not a known field.",
                param=f"{group}.{name}",
                code="unknown_field",
            )
    return replace(config, **asked)
