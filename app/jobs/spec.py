"""What a training job is asked for: the document, every field of it checked.

Takes whatever JSON held; gives a frozen ``JobSpec`` or raises InvalidInput that
names the field (``network.layers``). Only ``model`` and ``dataset`` must be
there; what is None is chosen later (``app.jobs.settling``). Knows neither the
dataset nor the machine.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    field_validator,
)

from app.charlm.network import NetworkConfig
from app.charlm.schedule import TrainingConfig
from app.errors import InvalidInput
from app.store.layout import checked_name

DATASET_PREFIX: Final = "ds_"

_Text = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@:._-]{1,300}$")]
_TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Tag = _Text | bool | Annotated[int, Field(ge=-(2**53), le=2**53)] | FiniteFloat
_Validation = Annotated[float, Field(gt=0, le=0.4)]
_Test = Annotated[float, Field(ge=0, le=0.4)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NetworkWishes(_Strict):
    """The network's shape, as far as it was asked for; see ``NetworkConfig``."""

    cell: Literal["rnn", "lstm", "gru"] | None = None
    activation: Literal["tanh", "relu"] | None = None  # of an rnn
    layers: int | None = Field(None, ge=1, le=15)
    hidden_size: int | None = Field(None, ge=1, le=16384)
    embedding_size: int | None = Field(None, ge=1, le=16384)
    dropout: float | None = Field(None, ge=0, lt=1)


class TrainingWishes(_Strict):
    """How to train, as far as it was asked for; see ``TrainingConfig``."""

    budget_seconds: float | None = Field(None, ge=1e-3, le=30 * 86_400)
    max_epochs: int | None = Field(None, ge=1, le=1_000_000)
    max_steps: int | None = Field(None, ge=1, le=1_000_000_000)
    batch_size: int | None = Field(None, ge=1, le=65_536)
    window: int | None = Field(None, ge=1, le=65_536)
    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    learning_rate: float | None = Field(None, ge=1e-9, le=100)
    schedule: Literal["linear", "constant"] | None = None
    clip_norm: float | None = Field(None, ge=1e-9, le=1e9)
    loss: Literal["cross_entropy", "squared_error"] | None = None
    validation_fraction: _Validation = 0.05
    test_fraction: _Test = 0.05
    patience: int | None = Field(None, ge=1, le=1_000_000)
    checkpoint_every_seconds: float = Field(30.0, ge=0.1, le=86_400)
    seed: int = Field(1, ge=0, le=2**53)


class JobSpec(_Strict):
    """A training job as it was asked for.

    ``dataset`` is an id, with its prefix or without; ``base_model`` names a
    published version to start from.
    """

    model: str
    dataset: _Reference
    network: NetworkWishes = NetworkWishes()
    training: TrainingWishes = TrainingWishes()
    base_model: _Reference | None = None
    priority: int = Field(0, ge=-1000, le=1000)
    max_attempts: int = Field(3, ge=1, le=100)
    tags: dict[_TagName, _Tag] = Field(default_factory=dict, max_length=50)

    @field_validator("network", "training", "tags", mode="before")
    @classmethod
    def _null_is_nothing(cls, value: object) -> object:
        return {} if value is None else value

    @classmethod
    def parse(cls, document: object) -> JobSpec:
        """The spec in a document; raises InvalidInput naming the first field that is wrong."""
        if not isinstance(document, dict):
            raise InvalidInput("A job is a JSON object.", code="invalid_type")
        try:
            spec = cls.model_validate(document)
        except ValidationError as error:
            raise _explained(error) from error
        checked_name(spec.model, param="model")
        return spec

    @property
    def dataset_id(self) -> str:
        """The dataset's bare id."""
        return self.dataset.removeprefix(DATASET_PREFIX)

    def document(self) -> dict[str, Any]:
        """The spec as JSON, None where nothing was asked."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """SHA-256 of what was asked: two requests with the same digest ask the same."""
        text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def settled_document(
    spec: JobSpec, network: NetworkConfig, training: TrainingConfig, base_model: str | None
) -> dict[str, Any]:
    """The spec with every value that was left out filled in."""
    document = spec.document()
    document["network"] = {name: getattr(network, name) for name in NetworkWishes.model_fields}
    document["training"] |= {
        name: getattr(training, name)
        for name in TrainingWishes.model_fields
        if hasattr(training, name)
    }
    document["base_model"] = base_model
    document["dataset"] = DATASET_PREFIX + spec.dataset_id
    return document


def in_order(document: dict[str, Any]) -> dict[str, Any]:
    """A settled document with its fields in the order people expect; JSONB forgets it."""
    parts: dict[str, type[BaseModel]] = {"network": NetworkWishes, "training": TrainingWishes}
    ordered = {name: document[name] for name in JobSpec.model_fields if name in document}
    for part, fields in parts.items():
        kept = ordered[part]
        ordered[part] = {name: kept[name] for name in fields.model_fields if name in kept}
    return ordered


_CODES: Final = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "greater_than_equal": "out_of_range",
    "greater_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "finite_number": "out_of_range",
    "literal_error": "invalid_value",
}


def _explained(error: ValidationError) -> InvalidInput:
    first = error.errors(include_url=False, include_input=False)[0]
    names = [str(part) for part in first["loc"] if not _is_branch(str(part))]
    field = ".".join(names)[:200]
    kind = first["type"]
    if kind == "extra_forbidden":
        message = f"{field} is not something that can be set."
    elif kind == "missing":
        message = f"{field} is missing."
    else:
        message = f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}."
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return InvalidInput(message, param=field or None, code=code)


def _is_branch(part: str) -> bool:
    """Whether this is the name of an alternative of a union, which nobody wrote."""
    return part in ("bool", "int", "float", "finite-float") or part.startswith("constrained-")
