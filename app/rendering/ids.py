"""Ids as the outside sees them: a prefix that says what it is, then 26 characters.

Takes what anyone may have written; gives the bare id, or the error of a thing
that does not exist. Inside, ids have no prefix.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from ..errors import InvalidInput, NotFound

Kind = Literal["dataset", "job", "run", "checkpoint"]

PREFIXES: Final[dict[Kind, str]] = {
    "dataset": "ds_",
    "job": "job_",
    "run": "run_",
    "checkpoint": "ckpt_",
}
_BARE: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


def shown(kind: Kind, bare: str) -> str:
    """The id with its prefix."""
    return PREFIXES[kind] + bare


def bare_id(kind: Kind, text: str) -> str:
    """The bare id in ``text``; raises NotFound for what cannot be one."""
    bare = text.removeprefix(PREFIXES[kind])
    if not _BARE.fullmatch(bare):
        raise NotFound(f"There is no {kind} {text[:80]!a}.", code=f"{kind}_not_found", param="id")
    return bare


def bare_after(kind: Kind, text: str | None) -> str | None:
    """The bare id that a page comes after; raises InvalidInput for what cannot be one."""
    if text is None:
        return None
    bare = text.removeprefix(PREFIXES[kind])
    if not _BARE.fullmatch(bare):
        raise InvalidInput(f"after must be the id of a {kind}.", param="after")
    return bare
