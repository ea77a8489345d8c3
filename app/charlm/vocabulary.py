"""Characters <-> ids: the symbols of a network and their numbers.

Takes and gives text (Python strings of Unicode code points) and ids (numpy
``int32``). Two ids are reserved: 0 for every character never seen in training, 1 for
the boundary between records, which also begins every text. Knows nothing of corpora or
networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]
"""Symbol ids, in any integer type."""

UNKNOWN: Final = 0
BOUNDARY: Final = 1
RESERVED: Final = 2
_SHORT: Final = 2000  # the longest text to be encoded character by character
_BLOCK: Final = 1 << 16  # characters of a long text that are looked at in one go

_RESERVED_NAMES: Final = ("<unknown>", "<boundary>")


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of ``text`` as an array; lone surrogates are kept as they are."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _text_of(points: NDArray[np.unsignedinteger]) -> str:
    raw = np.ascontiguousarray(points, dtype="<u4").tobytes()
    return raw.decode("utf-32-le", "surrogatepass")


class _IdOfCharacter(dict[str, int]):
    """Ids by character; ``UNKNOWN`` for any character that is missing."""

    def __missing__(self, character: str) -> int:
        return UNKNOWN


@dataclass(frozen=True)
class Vocabulary:
    """The characters a network knows: ``characters[i]`` has the id ``i + 2``.

    The order is part of the trained weights, so it never changes: ``widen``
    only appends.
    """

    characters: str

    def __post_init__(self) -> None:
        assert len(set(self.characters)) == len(self.characters), "a character occurs twice"

    @classmethod
    def from_code_points(cls, points: NDArray[np.unsignedinteger]) -> Vocabulary:
        """A vocabulary over distinct code points, in the order given."""
        return cls(_text_of(points))

    def __len__(self) -> int:
        """The number of symbols: the characters and the two reserved symbols."""
        return RESERVED + len(self.characters)

    @cached_property
    def _id_of_point(self) -> NDArray[np.int32]:
        """The id of each code point up to the highest known one; the last entry is UNKNOWN."""
        points = code_points(self.characters)
        table = np.full(int(points.max(initial=0)) + 2, UNKNOWN, dtype=np.int32)
        table[points] = np.arange(RESERVED, len(self), dtype=np.int32)
        return table

    @cached_property
    def _id_of_character(self) -> _IdOfCharacter:
        return _IdOfCharacter({c: RESERVED + place for place, c in enumerate(self.characters)})

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        """The text of each id."""
        return ("",) * RESERVED + tuple(self.characters)

    def encode_code_points(self, points: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Ids in the shape of ``points``; ``UNKNOWN`` for unknown characters."""
        table = self._id_of_point
        # A table instead of a search: this runs for every character of a corpus.
        ids: NDArray[np.int32] = table[np.minimum(points, np.uint32(len(table) - 1))]
        return ids

    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids [len(text)] of a text; no boundary is added."""
        if len(text) <= _SHORT:
            # Indexing in numpy releases the interpreter lock. Getting it back from a
            # busy engine takes longer than this.
            ids = map(self._id_of_character.__getitem__, text)
            return np.fromiter(ids, np.int32, len(text))
        return self.encode_code_points(code_points(text))

    def encode_each(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids of each text, as of ``encode``; many texts cost one pass."""
        if sum(map(len, texts)) <= _SHORT:
            return [self.encode(text) for text in texts]
        ends = np.cumsum([len(text) for text in texts])
        return np.split(self.encode_code_points(code_points("".join(texts))), ends[:-1])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without reserved ids, which have no text."""
        return "".join(self.characters[i - RESERVED] for i in ids if i >= RESERVED)

    def decode_each(self, ids: Iterable[int]) -> list[str]:
        """The text of each id by itself; reserved ids give ""."""
        return list(map(self._texts.__getitem__, ids))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each id is called: its character, or ``<boundary>`` or ``<unknown>``."""
        return (*_RESERVED_NAMES, *self.characters)

    def symbol(self, symbol_id: int) -> str:
        """The name of one id."""
        return self.names[symbol_id]

    def unknown_characters(self, text: str, most: int | None = None) -> str:
        """The distinct unknown characters of ``text``, in order of first occurrence.

        At most the first ``most`` of them. Nearly all of a long text is passed over in numpy.
        """
        found: dict[str, None] = {}
        for start in range(0, len(text), _BLOCK):
            block = text[start : start + _BLOCK]
            if len(block) > _SHORT:
                points = code_points(block)
                block = _text_of(points[self.encode_code_points(points) == UNKNOWN])
            known = self._id_of_character
            found.update((c, None) for c in dict.fromkeys(block) if c not in known)
            if most is not None and len(found) >= most:
                break
        return "".join(islice(found, most))

    def widen(self, text: str) -> Vocabulary:
        """This vocabulary followed by the characters of ``text`` that it lacks."""
        return Vocabulary(self.characters + "".join(sorted(self.unknown_characters(text))))
