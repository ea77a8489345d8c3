"""The schemas of requests, and of the answers to completions and errors.

The answers' classes exist for the documentation only: the routes write JSON directly.
Knows no engine and no database.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError, WrapValidator, field_validator
from pydantic_core import PydanticCustomError

from ..charlm.sampling import BIAS_BOUND, SAMPLING_BOUNDS
from ..engine.limits import MOST_CHOICES, MOST_SYMBOLS
from ..store.layout import MOST_VERSION, REFERENCE_LENGTH
from ..validation import bounded
from .http.bodies import Body

MOST_CHARACTERS: Final = 1_000_000
MOST_INPUTS: Final = 1_000
MOST_PROMPTS: Final = 1_000
MOST_TOP: Final = 20
"""Alternatives per symbol."""


def kind(description: str) -> WrapValidator:
    """Describe what is allowed in one sentence, where a union would list every branch."""

    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            raise PydanticCustomError(
                "union_type", "Input should be {wanted}", {"wanted": description}
            ) from error

    return WrapValidator(check)


SymbolId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Prompts = Annotated[
    str | list[str] | list[SymbolId] | list[list[SymbolId]],
    kind("a string, a list of strings, a list of symbol ids or a list of such lists"),
]
Stops = Annotated[str | list[str], kind("a string or a list of strings")]
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

    model: Model = None
    prompt: Prompts = Field("", description='Text to continue; "" starts at the boundary.')
    max_tokens: int = Field(256, ge=0, le=MOST_SYMBOLS)
    temperature: float = _drawing("temperature", 1.0, description="0 takes the likeliest symbol.")
    top_p: float = _drawing("top_p", 1.0)
    top_k: int = _drawing("top_k", 0, description="0 is off.")
    min_p: float = _drawing("min_p", 0.0)
    frequency_penalty: float = _drawing("frequency_penalty", 0.0)
    presence_penalty: float = _drawing("presence_penalty", 0.0)
    logit_bias: dict[
        Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
        Annotated[float, Field(ge=BIAS_BOUND.least, le=BIAS_BOUND.most)],
    ] = Field({}, max_length=100_000, description="Symbol id -> number added to its logit.")
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

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: str | list[str]) -> str | list[str]:
        stops = [value] if isinstance(value, str) else value
        if len(stops) > 16 or not all(0 < len(stop) <= 1000 for stop in stops):
            raise PydanticCustomError(
                "too_long", "Input should be up to 16 strings of 1 to 1000 characters"
            )
        return stops

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, value: Any) -> Any:
        if value == []:
            raise PydanticCustomError("too_short", "Input should be at least one prompt")
        if isinstance(value, list) and not isinstance(value[0], int):
            _check_size(value, MOST_PROMPTS)
        else:
            _check_size([value], 1)
        return value


Inputs = Annotated[str | list[str], kind("a string or a list of strings")]


class ScoreRequest(Body):
    """Texts to score."""

    model: Model = None
    input: Inputs
    per_character: bool = False
    top: int = Field(0, ge=0, le=MOST_TOP, description="Alternatives per character.")

    @field_validator("input")
    @classmethod
    def _input(cls, value: str | list[str]) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        return _check_size(texts, MOST_INPUTS)


class LineOfScores(Body):
    """One line of NDJSON."""

    input: str = Field(max_length=MOST_CHARACTERS)


class RankRequest(Body):
    """Candidates to rank as continuations of a prompt."""

    model: Model = None
    prompt: str = Field("", max_length=MOST_CHARACTERS)
    candidates: list[str] = Field(min_length=1)
    closed: bool | None = Field(
        None,
        description="Whether the record ends after a candidate; true by default for a line model.",
    )

    @field_validator("candidates")
    @classmethod
    def _candidates(cls, value: list[str]) -> list[str]:
        return _check_size(value, MOST_INPUTS)


class AliasRequest(Body):
    version: int = Field(ge=1, le=MOST_VERSION)


def _check_size(texts: list[Any], most: int) -> list[Any]:
    if len(texts) > most:
        raise PydanticCustomError(
            "too_long", "Input should be at most {most} entries", {"most": most}
        )
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise PydanticCustomError(
            "too_long",
            "Input should be at most {most} characters in total",
            {"most": f"{MOST_CHARACTERS:,}"},
        )
    return texts


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
