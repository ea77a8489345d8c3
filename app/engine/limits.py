"""The bounds of one request. Imports no numpy: the command line and the schemas read them."""

from __future__ import annotations

from typing import Final

MOST_SYMBOLS: Final = 100_000
"""The maximum length of a text in symbols."""

MOST_CHOICES: Final = 128
"""The maximum number of choices per prompt."""
