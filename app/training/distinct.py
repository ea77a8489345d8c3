"""Count distinct hashes exactly: in memory while they are few, beyond that in a scratch file.

Takes hashes of 64 bits that are spread evenly over their range, as ``hashed_lines`` gives them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ..charlm.corpus.hashing import Hashes
from ..errors import StorageFailed

_IN_MEMORY: Final = 1 << 20  # distinct hashes, of 8 bytes each, and as many new ones
_PARTS: Final = 256  # of the range of hashes; one part of all runs is in memory at once


def count_distinct(batches: Iterable[Hashes], scratch: Path | None) -> int:
    """The number of distinct hashes in ``batches``, exactly.

    ``scratch`` is the folder for the scratch file, None for the system's. It holds nothing while
    at most a million hashes are distinct, and at most eight bytes a hash beyond. Raises
    StorageFailed.
    """
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            return _counted(batches, file)
    except OSError as error:
        raise StorageFailed(
            f"The lines of the text cannot be counted: {error.strerror}; a temporary file is "
            "needed for it."
        ) from error


def _counted(batches: Iterable[Hashes], file: BinaryIO) -> int:
    runs: list[NDArray[np.int64]] = []  # for each run in the file, where its parts begin and end
    held, new, waiting = np.empty(0, dtype=np.uint64), [], 0
    for batch in batches:
        new.append(batch)
        waiting += len(batch)
        if waiting < _IN_MEMORY:
            continue
        held, new, waiting = _distinct([held, *new]), [], 0
        if len(held) > _IN_MEMORY:
            runs.append(_written(held, file, runs))
            held = held[:0].copy()
    held = _distinct([held, *new])
    if not runs:
        return len(held)
    runs.append(_written(held, file, runs))
    return sum(_distinct_in_part(part, runs, file) for part in range(_PARTS))


def _written(run: Hashes, file: BinaryIO, runs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Append a sorted run to the file; returns the places [_PARTS + 1] between its parts."""
    file.write(run.tobytes())
    borders = np.arange(1, _PARTS, dtype=np.uint64) * np.uint64(2**64 // _PARTS)
    inside = np.searchsorted(run, borders)
    return np.concatenate([[0], inside, [len(run)]]) + (int(runs[-1][-1]) if runs else 0)


def _distinct_in_part(part: int, runs: list[NDArray[np.int64]], file: BinaryIO) -> int:
    """How many distinct hashes all runs together have in one part of the range."""
    found = []
    for places in runs:
        begin, end = places[part : part + 2].tolist()
        file.seek(8 * begin)
        found.append(np.frombuffer(file.read(8 * (end - begin)), dtype=np.uint64))
    return len(_distinct(found))


def _distinct(batches: list[Hashes]) -> Hashes:
    """The distinct hashes, sorted; numpy's ``unique`` takes many times as long."""
    hashes = np.concatenate(batches)
    hashes.sort()
    new: NDArray[np.bool_] = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    return hashes[new]
