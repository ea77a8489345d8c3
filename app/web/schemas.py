"""The schemas of requests, and of the answers to completions and errors.

The answers' classes exist for the documentation only: the routes write JSON directly.
Knows no engine and no database.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    FailFast,
    Field,
    PlainValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from ..charlm.inspection import Kind
from ..charlm.sampling import BIAS_BOUND, SAMPLING_BOUNDS
from ..engine.limits import MOST_CHOICES, MOST_SYMBOLS
from ..store.layout import MOST_VERSION, REFERENCE_LENGTH
from ..validation import at_most, bounded, check_length
from .http.bodies import Body
from .http.strict_json import Most

MOST_CHARACTERS: Final = 1_000_000
MOST_INPUTS: Final = 1_000
MOST_PROMPTS: Final = 1_000
MOST_IDS: Final = 250_000
"""Symbol ids in all prompts of a request."""
MOST_BIASES: Final = 30_000
MOST_INSPECTED: Final = 4_000
"""Characters of a text to look inside a network with."""
MOST_UNITS: Final = 4_096
MOST_TOP: Final = 20
"""Alternatives per symbol."""

#: Room for a million characters, each written as one \uXXXX escape, and other fields.
_TEXTS: Final = Most(8 << 20, 10_000)
_MOST_ID: Final = 2**31 - 1
_PROMPTS: Final = "a string, a list of strings, a list of symbol ids or a list of such lists"


UnitNumber = Annotated[int, Field(ge=0)]
SymbolId = Annotated[int, Field(ge=0, le=_MOST_ID)]


def _texts(value: Any) -> str | list[str]:
    """A string or a list of strings; the first element that is none ends the check."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        check_length(value, MOST_INPUTS)
        if all(isinstance(each, str) for each in value):
            return value
    raise _wrong("a string or a list of strings")


def _stops(value: Any) -> str | list[str]:
    stops = _texts(value)
    listed = [stops] if isinstance(stops, str) else stops
    if len(listed) > 16 or not all(0 < len(stop) <= 1000 for stop in listed):
        raise PydanticCustomError(
            "too_long", "Input should be up to 16 strings of 1 to 1000 characters"
        )
    return stops


def _inputs(value: Any) -> list[str]:
    texts = _texts(value)
    return _check_characters([texts] if isinstance(texts, str) else texts)


def _prompts(value: Any) -> Any:
    """The first element says which kind of list it is, so no other kind is tried."""
    if isinstance(value, str):
        _check_characters([value])
        return value
    if not isinstance(value, list):
        raise _wrong(_PROMPTS)
    if not value:
        raise PydanticCustomError("too_short", "Input should be at least one prompt")
    if type(value[0]) is int:
        _check_ids([value])
        return value
    check_length(value, MOST_PROMPTS)
    if isinstance(value[0], str) and all(isinstance(each, str) for each in value):
        return _check_characters(value)
    if not all(isinstance(each, list) for each in value):
        raise _wrong(_PROMPTS)
    _check_ids(value)
    return value


def _check_ids(prompts: list[list[Any]]) -> None:
    """Check how many they are, then what they are; without an object for each."""
    if sum(map(len, prompts)) > MOST_IDS:
        raise PydanticCustomError(
            "too_long",
            "Input should be at most {most} symbol ids in total",
            {"most": f"{MOST_IDS:,}"},
        )
    for ids in prompts:
        if ids and not (set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) <= _MOST_ID):
            raise _wrong(_PROMPTS)


def _check_characters(texts: list[str]) -> list[str]:
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise PydanticCustomError(
            "too_long",
            "Input should be at most {most} characters in total",
            {"most": f"{MOST_CHARACTERS:,}"},
        )
    return texts


def _wrong(wanted: str) -> PydanticCustomError:
    return PydanticCustomError("union_type", "Input should be {wanted}", {"wanted": wanted})


# A union would try every branch on every element and keep what each of them said.
_OneOrMore = str | list[str]
Prompts = Annotated[
    Any,
    PlainValidator(
        _prompts, json_schema_input_type=str | list[str] | list[SymbolId] | list[list[SymbolId]]
    ),
]
Stops = Annotated[str | list[str], PlainValidator(_stops, json_schema_input_type=_OneOrMore)]
Inputs = Annotated[list[str], PlainValidator(_inputs, json_schema_input_type=_OneOrMore)]
Model = Annotated[
    str | None,
    Field(max_length=REFERENCE_LENGTH, description="A model's name, name@version or name@alias."),
]


def _drawing(name: str, default: float | None, description: str | None = None) -> Any:
    """A field of ``Sampling``, with its bound."""
    return Field(default, description=description, **bounded(SAMPLING_BOUNDS[name]))  # type: ignore[call-overload]


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: Any = Field(None, description="Accepted and ignored.")


class CompletionRequest(Body):
    """What to continue, how to sample, when to stop."""

    most = Most(_TEXTS.bytes, MOST_IDS + MOST_BIASES + _TEXTS.values)

    model: Model = None
    prompt: Prompts = Field("", description='Text to continue; "" starts at the boundary.')
    max_tokens: int = Field(256, ge=0, le=MOST_SYMBOLS)
    temperature: float = _drawing("temperature", 1.0, description="0 takes the likeliest symbol.")
    top_p: float = _drawing("top_p", 1.0)
    top_k: int = _drawing("top_k", 0, description="0 is off.")
    min_p: float = _drawing("min_p", 0.0)
    frequency_penalty: float = _drawing("frequency_penalty", 0.0)
    presence_penalty: float = _drawing("presence_penalty", 0.0)
    logit_bias: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
            Annotated[float, Field(ge=BIAS_BOUND.least, le=BIAS_BOUND.most)],
        ],
        FailFast(),
        at_most(MOST_BIASES),
    ] = Field({}, max_length=MOST_BIASES, description="Symbol id -> number added to its logit.")
    stop: Stops = Field([], description="Up to 16 strings; the text ends before the first.")
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    best_of: int | None = Field(
        None, ge=1, le=MOST_CHOICES, description="Draw this many, keep the n likeliest."
    )
    seed: int | None = _drawing("seed", None, description="Random when left out.")
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    echo: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    ignore_boundary: bool = Field(False, description="Make a line model go on after a line ends.")
    strict: bool = Field(False, description="Refuse characters that the model has never seen.")
    suffix: Any = Field(None, description="Refused: a recurrent model reads forward only.")
    user: Any = Field(None, description="Accepted and ignored.")
    metadata: Any = Field(None, description="Accepted and ignored.")

    @field_validator("suffix")
    @classmethod
    def _no_suffix(cls, value: Any) -> Any:
        if value is not None:
            raise PydanticCustomError("unsupported", "this model reads forward only")
        return value


class ScoreRequest(Body):
    """Texts to score."""

    most = _TEXTS

    model: Model = None
    input: Inputs
    per_character: bool = False
    top: int = Field(0, ge=0, le=MOST_TOP, description="Alternatives per character.")


class LineOfScores(Body):
    """One line of NDJSON."""

    most = Most(4 << 20, 100)

    input: str = Field(max_length=MOST_CHARACTERS)


class RankRequest(Body):
    """Candidates to rank as continuations of a prompt."""

    most = _TEXTS

    model: Model = None
    prompt: str = Field("", max_length=MOST_CHARACTERS)
    candidates: Annotated[
        list[str], FailFast(), at_most(MOST_INPUTS), AfterValidator(_check_characters)
    ] = Field(min_length=1, max_length=MOST_INPUTS)
    closed: bool | None = Field(
        None,
        description="Whether the record ends after a candidate; true by default for a line model.",
    )


class InspectRequest(Body):
    """A text and what to look at while a network reads it."""

    most = Most(64 << 10, 10_000)

    model: Model = None
    input: str = Field(max_length=MOST_INSPECTED)
    layer: int | None = Field(None, ge=0, description="Counted from 0; the last one by default.")
    kind: Kind = Field("hidden", description="The hidden state, or an LSTM's cell state.")
    units: Annotated[list[UnitNumber], FailFast(), at_most(MOST_UNITS)] = Field(
        [], description=f"Up to {MOST_UNITS} units, counted from 0; all if left out or empty."
    )


class AliasRequest(Body):
    """The version that an alias names."""

    most = Most(16 << 10, 100)

    version: int = Field(ge=1, le=MOST_VERSION)


# --- answers


class Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class ProblemAnswer(BaseModel):
    error: Problem


class LogprobsAnswer(BaseModel):
    """Four parallel arrays; the logprobs are the network's own, before temperature."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(BaseModel):
    index: int
    text: str
    logprobs: LogprobsAnswer | None
    finish_reason: Literal["stop", "length"] | None


class PromptDetails(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CompletionAnswer(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    seed: int
    choices: list[Choice]
    usage: Usage
    unknown_characters: str = Field(description="Characters read as the unknown symbol.")
