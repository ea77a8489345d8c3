"""Files shipped with the code: migrations and models.

When installed, they are inside the package; in the repository, beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHIPPED_MODELS: Final = ("names/1.safetensors", "shakespeare/1.safetensors")
"""By name: a clone also keeps its own models in that folder, and they are private."""

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The folder of that name, wherever this code runs from."""
    within = _PACKAGE / folder
    return within if within.is_dir() else _PACKAGE.parent / folder
