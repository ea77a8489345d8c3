"""A model file's description of itself: the network's shape, the vocabulary, the lineage.

A ``Card`` is stored as JSON in the file's header (see ``artifact``) and in the registry, and
sent as JSON over HTTP. Every field is bounded and checked against the others, so every card
is consistent. Knows neither weights nor files.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ..bounds import EXACT
from ..charlm.cells import Activation, Cell
from ..charlm.corpus.format import CorpusFormat
from ..charlm.measures import Measures
from ..charlm.network_config import NetworkConfig
from ..charlm.number_format import Precision
from ..charlm.vocabulary import RESERVED, Vocabulary
from ..errors import InvalidInput
from ..validation import at_most, invalid

FORMAT_VERSION: Final = 1
_MOST_QUANTILES: Final = 10_001
WeightDtype = Literal["float32", "float16", "bfloat16"]
"""The type of the numbers in the file; ``serving_precision`` is the type for computing."""

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Ulid = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{26}$")]
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must be one line, without control characters")
    return text


ONE_LINE: Final = AfterValidator(_one_line)
"""Text for people; control characters must reach neither a database nor a terminal."""
Line = Annotated[str, StringConstraints(max_length=1000), ONE_LINE]

_Count = Annotated[int, Field(ge=0, le=EXACT)]
_Parameter = Line | bool | Annotated[int, Field(ge=-EXACT, le=EXACT)] | FiniteFloat | None
_Bits = Annotated[FiniteFloat, Field(ge=0)]

_LIBRARIES: Final = ("charloom", "numpy", "torch")


class _Part(BaseModel):
    # Fields that this version does not know are ignored: a newer card with one more field is no
    # reason to refuse a model. A change of meaning raises FORMAT_VERSION instead.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Measured(_Part):
    """The network's measures on held-out text; see ``app.charlm.measures``."""

    nats: _Bits
    bits_per_character: _Bits
    perplexity: FiniteFloat = Field(ge=1)
    accuracy: FiniteFloat = Field(ge=0, le=1)
    characters: _Count

    @classmethod
    def of(cls, measures: Measures | None) -> Self | None:
        """The figures of these measures for a card; None for None."""
        return None if measures is None else cls.model_validate(measures, from_attributes=True)


class Lineage(_Part):
    """The network's origin, for people, with enough detail to train it again."""

    corpus: Line | None = None  # what it was trained on, with the corpus's origin and terms
    command: Line | None = None  # to train it again
    base_model: Line | None = None  # name@version whose weights it started from
    # of the training
    parameters: Annotated[dict[Line, _Parameter], FailFast()] = Field(default_factory=dict)

    @classmethod
    def of(cls, **origin: str | None) -> Self:
        """The lineage with these fields; raises InvalidInput naming one that is not a line."""
        try:
            return cls.model_validate(origin)
        except ValidationError as error:
            raise invalid(error) from error


class Card(_Part):
    """One model file's description.

    ``sha256`` and ``size_bytes`` describe the file itself, so they are absent inside it and
    known once it has been written or read. Times are Unix seconds. In JSON ``weight_dtype`` is
    called ``precision``.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    format_version: Literal[1] = FORMAT_VERSION
    cell: Cell
    layers: int
    hidden_size: int
    embedding_size: int
    dropout: FiniteFloat = 0.0
    activation: Activation = "tanh"
    tied: bool = False
    parameters: _Count
    symbols: _Count
    vocabulary: str = Field(repr=False)
    corpus_format: CorpusFormat
    weight_dtype: WeightDtype = Field(alias="precision")
    weights_sha256: _Digest
    serving_precision: Precision = "float32"
    verbatim_copy_rate: FiniteFloat | None = Field(None, ge=0, le=1)  # of 1,000 samples
    calibration: Annotated[tuple[_Bits, ...] | None, at_most(_MOST_QUANTILES)] = Field(
        None, min_length=2, max_length=_MOST_QUANTILES, repr=False
    )
    trained_characters: _Count = 0
    dataset_sha256: _Digest | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**64 - 1)
    validation: Measured | None = None
    test: Measured | None = None
    run_id: _Ulid | None = None
    created_at: _Count
    libraries: Annotated[dict[Line, Line], FailFast()] = Field(default_factory=dict)
    lineage: Lineage = Lineage()
    size_bytes: _Count | None = None
    sha256: _Digest | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("the vocabulary has a character twice")
        if self.symbols != len(self.vocabulary) + RESERVED:
            raise ValueError("symbols is not the size of the vocabulary")
        try:
            network = self.network
        except InvalidInput as error:
            raise ValueError(error.message) from error
        if self.parameters != network.parameters(self.symbols):
            raise ValueError("parameters is not the number of the network's weights")
        quantiles = self.calibration or ()
        if any(low > high for low, high in pairwise(quantiles)):
            raise ValueError("the calibration does not ascend")
        return self

    @property
    def network(self) -> NetworkConfig:
        """The shape of the network."""
        return NetworkConfig(
            cell=self.cell,
            layers=self.layers,
            hidden_size=self.hidden_size,
            embedding_size=self.embedding_size,
            dropout=self.dropout,
            activation=self.activation,
            tied=self.tied,
        )

    def summary(self) -> dict[str, Any]:
        """The card as JSON, without the two long fields: the vocabulary and the calibration."""
        return self.model_dump(mode="json", exclude={"vocabulary", "calibration"})

    def to_json(self) -> str:
        """The card as written in the file: ASCII, without the file's own size and digest."""
        fields = self.model_dump(mode="json", exclude={"size_bytes", "sha256"}, exclude_none=True)
        return json.dumps(fields, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def network_fields(config: NetworkConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """The fields of a card that follow from the network and its vocabulary."""
    return {
        "cell": config.cell,
        "layers": config.layers,
        "hidden_size": config.hidden_size,
        "embedding_size": config.embedding_size,
        "dropout": config.dropout,
        "activation": config.activation,
        "tied": config.tied,
        "parameters": config.parameters(len(vocabulary)),
        "symbols": len(vocabulary),
        "vocabulary": vocabulary.characters,
    }


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that affect the arithmetic."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # app/ is on the path but not installed
            continue
    return found
