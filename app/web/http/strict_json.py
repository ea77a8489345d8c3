"""JSON texts as values: strict, and with a cost that is known before they are parsed.

Takes the bytes of one text; gives its value. Strict means: UTF-8, no NaN, no duplicate keys,
no half of a surrogate pair. The values in a text are counted on its bytes first, so one that
was made to be expensive (millions of empty lists, of keys, of digits) is refused in
milliseconds. Knows no request and no schema.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ...errors import InvalidInput, TooLarge

_UNCOUNTED_BYTES: Final = 2_000
"""A shorter text cannot hold enough to be worth counting."""
_MOST_NESTED: Final = 2_000
"""Arrays and objects in one text: twice as many as the most prompts."""
_MOST_KEYS: Final = 32_000
_MOST_FRACTIONS: Final = 64_000
"""Points and exponents of numbers: reading a float costs ten times as much as an integer."""
_MOST_DIGITS: Final = 400
"""Of one number; the largest that a float can hold has 309."""
_ALL_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")
_VALUES: Final = "values (strings, numbers, arrays, …)"


@dataclass(frozen=True)
class Most:
    """The most that a text may have: bytes, and values (strings, numbers, arrays, …) in it."""

    bytes: int
    values: int

    def __str__(self) -> str:
        """``1,024 KiB and 1,000 values``."""
        return f"{self.bytes >> 10:,} KiB and {self.values:,} values"


def parse_json(raw: bytes, most_values: int) -> Any:
    """The value of a JSON text.

    Raises InvalidInput saying where it is invalid, and TooLarge if it has more values.
    """
    try:
        text = raw.decode("utf-8-sig")
        if len(raw) > _UNCOUNTED_BYTES:
            _check_counts(raw, most_values)
        value = json.loads(text, object_pairs_hook=_once_each, parse_constant=_not_a_number)
        if b"\\ud" in raw or b"\\uD" in raw:  # only an escape can make half of a surrogate pair
            _check_characters(value, ())
        return value
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The body is not UTF-8: byte {error.start} is invalid.", code="invalid_json"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"The body is not JSON: {error.msg} at character {error.pos}.", code="invalid_json"
        ) from error
    except RecursionError as error:
        raise InvalidInput("The body is nested too deeply.", code="invalid_json") from error


def _check_counts(raw: bytes, most_values: int) -> None:
    """Count what parsing would build. Each step is one pass in C over the bytes."""
    if b"\\" in raw:  # so that every quote left begins or ends a string
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if raw.count(b'"') > 2 * (most_values + _MOST_KEYS):
        _refuse_number(most_values, _VALUES)
    outside = b'""'.join(raw.split(b'"')[::2])
    nested = outside.count(b"[") + outside.count(b"{")
    if nested > _MOST_NESTED:
        raise InvalidInput(
            f"The body has more than {_MOST_NESTED:,} arrays and objects.", code="invalid_json"
        )
    if 1 + nested + outside.count(b",") > most_values:
        _refuse_number(most_values, _VALUES)
    if outside.count(b":") > _MOST_KEYS:
        _refuse_number(_MOST_KEYS, "keys")
    exponents = sum(map(outside.count, (b"e", b"E"))) - sum(map(outside.count, (b"ue", b"se")))
    if outside.count(b".") + exponents > _MOST_FRACTIONS:  # true and false have no exponent
        _refuse_number(_MOST_FRACTIONS, "fractions and exponents of numbers")
    if b"0" * _MOST_DIGITS in outside.translate(_ALL_ZERO):  # reading one costs its square
        raise InvalidInput("A number in the body is too long.", code="invalid_json")


def _check_characters(value: Any, path: tuple[str | int, ...]) -> None:
    """Raises InvalidInput for half of a surrogate pair, which is not a character."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            param = ".".join(map(str, path)) or None
            half = f"\\u{ord(value[error.start]):04x}"
            raise InvalidInput(
                f"{param or 'The body'} has {half} at character {error.start}: half of a "
                "surrogate pair, which is not a character.",
                param=param,
                code="invalid_json",
            ) from error
    elif isinstance(value, list):
        for place, each in enumerate(value):
            _check_characters(each, (*path, place))
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_characters(key, path)
            _check_characters(each, (*path, key))


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise InvalidInput(
            f"The body has {twice[:100]!r} twice.", param=twice[:100], code="duplicate_field"
        )
    return fields


def _not_a_number(constant: str) -> NoReturn:
    raise InvalidInput(f"{constant} is not a JSON number.", code="invalid_json")


def _refuse_number(most: int, what: str) -> NoReturn:
    raise TooLarge(
        f"The body has more than {most:,} {what}. Send fewer in one request.",
        code="body_too_large",
    )
