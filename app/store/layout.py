"""Where a model is in the store: ``<name>/<version>.safetensors``.

Takes untrusted names; gives keys. A key from here cannot lead out of the store: no part of it
begins with a dot or contains a slash.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import InvalidInput

SUFFIX: Final = ".safetensors"
NAME_LENGTH: Final = 200
REFERENCE_LENGTH: Final = 400
"""Room for name@version and name@alias."""
MOST_VERSION: Final = 999_999_999

_PART: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
_NAME: Final = re.compile(rf"{_PART}|ft(:{_PART})+")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")


def is_name(name: str) -> bool:
    """Whether this is a valid model name."""
    return len(name) <= NAME_LENGTH and _NAME.fullmatch(name) is not None


def checked_name(name: str, *, param: str = "name") -> str:
    """``name`` if it is a valid model name; raises InvalidInput."""
    if not is_name(name):
        raise InvalidInput(
            f"{name[:80]!r} cannot be a model's name: use up to 64 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or a digit.",
            param=param,
            code="invalid_name",
        )
    return name


def is_alias(alias: str) -> bool:
    """Whether this is a valid alias; it starts with a letter, so it is never a number."""
    return _ALIAS.fullmatch(alias) is not None


def checked_alias(alias: str, *, param: str = "alias") -> str:
    """``alias`` if it is a valid alias; raises InvalidInput."""
    if not is_alias(alias):
        raise InvalidInput(
            f"{alias[:80]!r} cannot be an alias: use up to 64 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter.",
            param=param,
            code="invalid_name",
        )
    return alias


def version_number(text: str) -> int | None:
    """The version number that a text is, or None."""
    return int(text) if _VERSION.fullmatch(text) else None


def model_key(name: str, version: int) -> str:
    """The key of a version."""
    return f"{checked_name(name)}/{version}{SUFFIX}"


def parse_key(key: str) -> tuple[str, int] | None:
    """The name and version that ``key`` stands for; None if it is no model's key."""
    name, _, file = key.partition("/")
    version = version_number(file.removesuffix(SUFFIX)) if file.endswith(SUFFIX) else None
    return (name, version) if version is not None and is_name(name) else None
