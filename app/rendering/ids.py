"""Ids as the API shows them: a prefix for the kind, then 26 characters.

Takes any text that a client may have sent; gives the bare id, or the error for a thing
that does not exist. Inside the program, ids have no prefix.
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
    """The bare id after which a page starts; raises InvalidInput for what cannot be one."""
    if text is None:
        return None
    bare = text.removeprefix(PREFIXES[kind])
    if not _BARE.fullmatch(bare):
        raise InvalidInput(f"after must be the id of a {kind}.", param="after")
    return bare
