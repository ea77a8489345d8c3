"""Names for requests and answers: ULIDs whose random part costs no system call.

The system's own random numbers let go of the interpreter lock, and under load
getting it back takes longer than everything else in a request. These names are
no secrets.
"""

from __future__ import annotations

import random
import time
from typing import Final

from ulid import ULID

_random: Final = random.Random()


def fresh() -> ULID:
    """A new ULID: the time in milliseconds, then 80 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    return ULID(milliseconds.to_bytes(6, "big") + _random.randbytes(10))
