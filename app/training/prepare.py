"""From a text file to a corpus: read as a stream, check, describe, encode as ids.

Takes any UTF-8 file; gives its ``Profile`` and a ``Corpus``; a large file's ids are in a
scratch file instead of in memory. Knows nothing of networks or HTTP.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..charlm.corpus.corpus import Corpus
from ..charlm.corpus.format import DEFAULT_FRACTION, CorpusFormat
from ..charlm.corpus.lines import LineCorpus
from ..charlm.corpus.text import TextCorpus
from ..charlm.corpus.windows import smallest_id_type
from ..charlm.vocabulary import BOUNDARY, RESERVED, Vocabulary, code_points
from ..errors import StorageFailed
from .line_lengths import guess_format
from .profile import Profile, profile_of
from .survey import NEWLINE, Survey, survey, text_pieces

_IN_MEMORY: Final = 1 << 25  # characters; beyond it, ids go to a scratch file


@dataclass(frozen=True)
class Prepared:
    """A corpus ready for training."""

    vocabulary: Vocabulary
    corpus: Corpus
    profile: Profile
    validation_fraction: float
    test_fraction: float


def prepare(
    path: Path,
    *,
    format: CorpusFormat | None = None,
    validation_fraction: float = DEFAULT_FRACTION,
    test_fraction: float = DEFAULT_FRACTION,
    seed: int = 1,
    known: Vocabulary | None = None,
    scratch: Path | None = None,
) -> Prepared:
    """Read a file into a corpus.

    ``format`` is guessed when None. ``known`` is a vocabulary to extend instead of making a
    new one. ``scratch`` is the folder for ids that do not fit in memory. Raises InvalidCorpus,
    saying what is wrong and what to do.
    """
    found = survey(path)
    form: CorpusFormat = format or guess_format(found.lines)
    vocabulary = _vocabulary(found, form, known)
    ids = _encoded(path, found.characters, vocabulary, form, scratch)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    corpus = _corpus(ids, vocabulary, form, seed=seed, **fractions)
    distinct = found.lines.filled - corpus.duplicates if isinstance(corpus, LineCorpus) else None
    return Prepared(vocabulary, corpus, profile_of(found, form, distinct), **fractions)


def _vocabulary(found: Survey, form: CorpusFormat, known: Vocabulary | None) -> Vocabulary:
    """The characters of the text, added to a ``known`` vocabulary if given."""
    points = np.array(sorted(found.counts), dtype=np.uint32)
    if form == "lines":
        points = points[points != NEWLINE]
    vocabulary = Vocabulary.from_code_points(points)
    return known.widen(vocabulary.characters) if known else vocabulary


def _corpus(
    ids: NDArray[Any], vocabulary: Vocabulary, form: CorpusFormat, *, seed: int, **fractions: float
) -> Corpus:
    if form == "lines":
        reserved = np.zeros(RESERVED, dtype=np.uint32)
        points_V = np.concatenate([reserved, code_points(vocabulary.characters)])
        return LineCorpus(ids, points_V, seed=seed, **fractions)
    newline = int(vocabulary.encode("\n")[0])
    return TextCorpus(ids, newline_id=newline if newline >= RESERVED else None, **fractions)


def _encoded(
    path: Path, characters: int, vocabulary: Vocabulary, form: CorpusFormat, scratch: Path | None
) -> NDArray[Any]:
    kind = smallest_id_type(len(vocabulary))
    ids: NDArray[Any]
    if characters <= _IN_MEMORY:
        ids = np.empty(characters, dtype=kind)
    else:
        # Once mapped, the file needs no name, so the system removes it when the program ends.
        with tempfile.NamedTemporaryFile(dir=scratch) as file:
            _reserve(file.fileno(), characters * np.dtype(kind).itemsize)
            ids = np.memmap(file.name, dtype=kind, mode="r+", shape=(characters,))
    place = 0
    for text in text_pieces(path):
        points = code_points(text)
        encoded = vocabulary.encode_code_points(points)
        if form == "lines":
            encoded[points == NEWLINE] = BOUNDARY
        ids[place : place + len(points)] = encoded
        place += len(points)
    return ids


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Allocate the file before mapping it: a full disk is an error here, but a crash later."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size_bytes)
        else:
            os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        raise StorageFailed(
            f"The text cannot be prepared: {error.strerror}; {size_bytes / 1e6:,.0f} MB are needed."
        ) from error
