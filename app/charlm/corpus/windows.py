"""The input of training and evaluation: windows of ids for many rows at once.

Knows nothing of text, files or how a corpus is split; ``text.py`` and ``lines.py`` make
the windows. Shapes: B rows, T time steps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, overload

import numpy as np
from numpy.typing import NDArray

SplitName = Literal["train", "validation", "test"]

IGNORED: Final = -1
"""The target at a padded position: neither trained on nor measured."""


@dataclass(frozen=True)
class Window:
    """One truncated-backpropagation step for all rows.

    ``inputs_BT`` and ``targets_BT`` are int64; a target may be ``IGNORED``.
    Rows where ``reset_B`` is true start from the zero state.
    """

    inputs_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    reset_B: NDArray[np.bool_]

    @property
    def characters(self) -> int:
        """The number of targets that count."""
        return int((self.targets_BT != IGNORED).sum())


class Windows(Sequence[Window]):
    """Windows made on demand, so that a pass can resume at any window."""

    @abstractmethod
    def _window(self, index: int) -> Window:
        """The window at a valid index."""

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self._window(i) for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._window(index)


def smallest_id_type(symbols: int) -> type[np.unsignedinteger]:
    """The narrowest unsigned type that holds every id of ``symbols`` symbols."""
    for kind in (np.uint8, np.uint16):
        if symbols <= np.iinfo(kind).max + 1:
            return kind
    return np.uint32
