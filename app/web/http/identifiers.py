"""Names for requests and answers: ULIDs whose random part costs no system call.

Reading the system's random numbers releases the interpreter lock, and under load
getting it back takes longer than everything else in a request. These names are
not secret.
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
