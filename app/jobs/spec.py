"""The specification of a training job: a document with every field checked.

Takes parsed JSON; returns a frozen ``JobSpec``, or raises InvalidInput naming the field
(``network.layers``). Only ``model`` and ``dataset`` are required; values that are None are
chosen later (``training.planning``). Knows neither the dataset nor the machine.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    FailFast,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    field_validator,
)

from ..bounds import EXACT, Bound
from ..charlm.cells import Activation, Cell
from ..charlm.corpus.format import DEFAULT_FRACTION, FRACTION_BOUNDS
from ..charlm.network_config import NETWORK_BOUNDS
from ..charlm.schedule import TRAINING_BOUNDS, LossName, OptimizerName, ScheduleName
from ..errors import InvalidInput
from ..store.card import ONE_LINE
from ..store.layout import REFERENCE_LENGTH, checked_name
from ..training.planning import TrainingPlan, Wishes
from ..validation import Strict, at_most, bounded, invalid

DATASET_PREFIX: Final = "ds_"
_MOST_TAGS: Final = 50

_Text = Annotated[str, StringConstraints(max_length=500), ONE_LINE]
_Reference = Annotated[
    str, StringConstraints(max_length=REFERENCE_LENGTH, pattern=r"^[A-Za-z0-9@:._-]+$")
]
_TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Tag = _Text | bool | Annotated[int, Field(ge=-EXACT, le=EXACT)] | FiniteFloat


def _within(bound: Bound, default: float | None = None) -> Any:
    return Field(default, **bounded(bound))  # type: ignore[call-overload]


#: Fields in a spec's ``training`` that ``TrainingConfig`` does not have.
_NOT_PLANNED: Final = {"validation_fraction", "test_fraction", "checkpoint_every_seconds", "seed"}


class NetworkWishes(Strict):
    """The requested shape of the network; see ``NetworkConfig``."""

    cell: Cell | None = None
    activation: Activation | None = None  # of an rnn
    layers: int | None = _within(NETWORK_BOUNDS["layers"])
    hidden_size: int | None = _within(NETWORK_BOUNDS["hidden_size"])
    embedding_size: int | None = _within(NETWORK_BOUNDS["embedding_size"])
    dropout: float | None = _within(NETWORK_BOUNDS["dropout"])


class TrainingWishes(Strict):
    """How to train, as requested; see ``TrainingConfig``."""

    budget_seconds: float | None = _within(TRAINING_BOUNDS["budget_seconds"])
    max_epochs: int | None = _within(TRAINING_BOUNDS["max_epochs"])
    max_steps: int | None = _within(TRAINING_BOUNDS["max_steps"])
    batch_size: int | None = _within(TRAINING_BOUNDS["batch_size"])
    window: int | None = _within(TRAINING_BOUNDS["window"])
    optimizer: OptimizerName | None = None
    learning_rate: float | None = _within(TRAINING_BOUNDS["learning_rate"])
    schedule: ScheduleName | None = None
    clip_norm: float | None = _within(TRAINING_BOUNDS["clip_norm"])
    loss: LossName | None = None
    validation_fraction: float = _within(FRACTION_BOUNDS["validation_fraction"], DEFAULT_FRACTION)
    test_fraction: float = _within(FRACTION_BOUNDS["test_fraction"], DEFAULT_FRACTION)
    patience: int | None = _within(TRAINING_BOUNDS["patience"])
    checkpoint_every_seconds: float = Field(30.0, ge=0.1, le=86_400)
    seed: int = _within(TRAINING_BOUNDS["seed"], 1)


class JobSpec(Strict):
    """A training job as requested.

    ``dataset`` is an id with or without its prefix; ``base_model`` names the published version
    to start from.
    """

    model: str
    dataset: _Reference
    network: NetworkWishes = NetworkWishes()
    training: TrainingWishes = TrainingWishes()
    base_model: _Reference | None = None
    priority: int = Field(0, ge=-1000, le=1000)
    max_attempts: int = Field(3, ge=1, le=100)
    tags: Annotated[dict[_TagName, _Tag], FailFast(), at_most(_MOST_TAGS)] = Field(
        default_factory=dict, max_length=_MOST_TAGS
    )

    @field_validator("network", "training", "tags", mode="before")
    @classmethod
    def _null_is_nothing(cls, value: object) -> object:
        return {} if value is None else value

    @classmethod
    def parse(cls, document: object) -> JobSpec:
        """The spec in a document; raises InvalidInput naming the first wrong field."""
        if not isinstance(document, dict):
            raise InvalidInput("A job is a JSON object.", code="invalid_type")
        try:
            spec = cls.model_validate(document)
        except ValidationError as error:
            raise invalid(error) from error
        checked_name(spec.model, param="model")
        return spec

    @property
    def dataset_id(self) -> str:
        """The dataset's bare id."""
        return self.dataset.removeprefix(DATASET_PREFIX)

    @property
    def wishes(self) -> Wishes:
        """The requested network and training, as planning takes them."""
        training = self.training.model_dump(exclude=_NOT_PLANNED)
        return Wishes(
            network=self.network.model_dump(),
            training=training,
            validation_fraction=self.training.validation_fraction,
            test_fraction=self.training.test_fraction,
            seed=self.training.seed,
        )

    def document(self) -> dict[str, Any]:
        """The spec as JSON, None where nothing was requested."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """SHA-256 of the request: equal requests have equal digests."""
        text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def planned_document(spec: JobSpec, plan: TrainingPlan, base_model: str | None) -> dict[str, Any]:
    """The spec with every value that was left out filled in."""
    document, values = spec.document(), plan.values
    document["network"] = {name: values[name] for name in NetworkWishes.model_fields}
    document["training"] |= {
        name: values[name] for name in TrainingWishes.model_fields if name in values
    }
    document["base_model"] = base_model
    document["dataset"] = DATASET_PREFIX + spec.dataset_id
    return document


def in_order(document: dict[str, Any]) -> dict[str, Any]:
    """A planned document with its fields in the order people expect, which JSONB loses."""
    parts: dict[str, type[BaseModel]] = {"network": NetworkWishes, "training": TrainingWishes}
    ordered = {name: document[name] for name in JobSpec.model_fields if name in document}
    for part, fields in parts.items():
        kept = ordered[part]
        ordered[part] = {name: kept[name] for name in fields.model_fields if name in kept}
    return ordered
