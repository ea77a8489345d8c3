"""From a text file to a corpus: read as a stream, check, describe, encode as ids.

Takes any UTF-8 file; gives its ``Profile`` (what is in it, with warnings in plain words) and a
``Corpus``; a large file's ids are in a scratch file instead of in memory. A byte-order mark
is dropped; Windows and old Macintosh line endings become ``\\n``. Knows nothing of networks
or HTTP.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
from ..errors import InvalidCorpus, NotFound, StorageFailed

_PIECE: Final = 1 << 22  # bytes read at once
_IN_MEMORY: Final = 1 << 25  # characters; beyond it, ids go to a scratch file
_NEWLINE: Final = 10
_LONG_LINE: Final = 1000
_SMALL: Final = 10_000
_RARE: Final = 3


@dataclass(frozen=True)
class Profile:
    """What is in a text; ``records`` counts its lines that are not empty."""

    bytes: int
    characters: int
    records: int
    distinct_records: int | None  # counted for lines only
    symbols: int  # distinct characters
    longest_record: int
    typical_length: int  # characters that 95 in 100 records stay below
    sha256: str  # of the bytes as read
    format: CorpusFormat
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A corpus ready for training."""

    vocabulary: Vocabulary
    corpus: Corpus
    profile: Profile
    validation_fraction: float
    test_fraction: float


@dataclass
class _Survey:
    """What the first pass over a file counts."""

    bytes: int = 0
    characters: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    counts: dict[int, int] = field(default_factory=dict)
    had_mark: bool = False
    had_returns: bool = False
    line_lengths: list[NDArray[np.int64]] = field(default_factory=list)
    open_line: int = 0  # characters so far of the line being read


def text_pieces(path: Path, survey: _Survey | None = None) -> Iterator[str]:
    """The text of a file in pieces, normalised; ``survey`` records what was found.

    Raises InvalidCorpus for bytes that are not UTF-8 and for a NUL, giving the position.
    """
    held_return, first = "", True
    for text in _decoded_pieces(path, survey):
        if first and text:
            first = False
            if text[0] == "\ufeff":
                text = text[1:]
                if survey:
                    survey.had_mark = True
        text = held_return + text
        held_return = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r")
        if survey and "\r" in text:
            survey.had_returns = True
        yield text.replace("\r\n", "\n").replace("\r", "\n")
    if held_return:
        yield "\n"


def _decoded_pieces(path: Path, survey: _Survey | None) -> Iterator[str]:
    """The text of a file in pieces as it is there; ``survey`` takes size and digest."""
    pending, offset = b"", 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                if survey:
                    survey.digest.update(piece)
                    survey.bytes += len(piece)
                text, pending = _decoded(pending + piece, offset, last=False)
                offset += len(text.encode())
                yield text
            _decoded(pending, offset, last=True)  # raises if the file ends inside a character
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.", code="file_not_found") from error
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error


def _decoded(raw: bytes, offset: int, *, last: bool) -> tuple[str, bytes]:
    """The text of ``raw`` and the bytes of an incomplete last character."""
    try:
        text, rest = raw.decode("utf-8"), b""
    except UnicodeDecodeError as error:
        cut_short = error.end == len(raw) and error.reason == "unexpected end of data"
        if last or not cut_short:
            raise InvalidCorpus(
                f"The text is not valid UTF-8: byte {offset + error.start} "
                f"(0x{raw[error.start]:02x}) is not valid there. Save it as UTF-8, or convert it "
                "(for example: iconv -f latin1 -t utf-8).",
                code="invalid_utf8",
            ) from error
        text, rest = raw[: error.start].decode("utf-8"), raw[error.start :]
    place = text.find("\0")
    if place >= 0:
        raise InvalidCorpus(
            f"The text has a NUL at byte {offset + len(text[:place].encode())}: it is not plain "
            "text, or it is in UTF-16. Convert it to UTF-8 and remove NULs.",
            code="nul_in_text",
        )
    return text, rest


def _survey(path: Path) -> _Survey:
    survey = _Survey()
    for text in text_pieces(path, survey):
        points = code_points(text)
        survey.characters += len(points)
        counted = np.bincount(points)  # ten times as fast as np.unique
        for point in np.flatnonzero(counted).tolist():
            survey.counts[point] = survey.counts.get(point, 0) + int(counted[point])
        ends = np.flatnonzero(points == _NEWLINE)
        if len(ends):
            lengths = np.diff(ends, prepend=-1) - 1
            lengths[0] += survey.open_line
            survey.line_lengths.append(lengths)
            survey.open_line = len(points) - int(ends[-1]) - 1
        else:
            survey.open_line += len(points)
    if survey.open_line:
        survey.line_lengths.append(np.array([survey.open_line]))
    return survey


def guess_format(lengths: NDArray[np.int64]) -> CorpusFormat:
    """Lines, if the lines are short and hardly any between them is empty; otherwise text."""
    filled = lengths[lengths > 0]
    if len(filled) < 3:
        return "text"
    last = int(np.flatnonzero(lengths)[-1])
    empty = int((lengths[: last + 1] == 0).sum())
    short = np.median(filled) <= 100 and np.quantile(filled, 0.95) <= 300
    return "lines" if short and empty <= 0.001 * len(filled) else "text"


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
    survey = _survey(path)
    if not survey.characters:
        raise InvalidCorpus("The text is empty.", code="empty_text")
    lengths = np.concatenate(survey.line_lengths)
    form: CorpusFormat = format or guess_format(lengths)
    vocabulary = _vocabulary(survey, form, known)
    ids = _encoded(path, survey.characters, vocabulary, form, scratch)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    corpus = _corpus(ids, vocabulary, form, seed=seed, **fractions)
    profile = _with_warnings(_profile(survey, lengths, corpus), survey)
    return Prepared(vocabulary, corpus, profile, **fractions)


def _vocabulary(survey: _Survey, form: CorpusFormat, known: Vocabulary | None) -> Vocabulary:
    """The characters of the text, added to a ``known`` vocabulary if given."""
    points = np.array(sorted(survey.counts), dtype=np.uint32)
    if form == "lines":
        points = points[points != _NEWLINE]
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
            encoded[points == _NEWLINE] = BOUNDARY
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


def _profile(survey: _Survey, lengths: NDArray[np.int64], corpus: Corpus) -> Profile:
    filled = lengths[lengths > 0]
    return Profile(
        bytes=survey.bytes,
        characters=survey.characters,
        records=len(filled),
        distinct_records=(
            len(filled) - corpus.duplicates if isinstance(corpus, LineCorpus) else None
        ),
        symbols=len(survey.counts) - (corpus.format == "lines" and _NEWLINE in survey.counts),
        longest_record=int(lengths.max()),
        typical_length=int(np.quantile(filled, 0.95)) + 1 if len(filled) else 1,
        sha256=survey.digest.hexdigest(),
        format=corpus.format,
    )


def _with_warnings(profile: Profile, survey: _Survey) -> Profile:
    rare = [point for point, count in survey.counts.items() if count < _RARE]
    said = []
    if survey.had_mark:
        said.append("The byte-order mark at the start was left out.")
    if survey.had_returns:
        said.append("Windows or Macintosh line endings were converted to plain newlines.")
    if profile.distinct_records is not None and profile.distinct_records < profile.records:
        twice = profile.records - profile.distinct_records
        said.append(
            f"Repeated lines: {twice:,}. Training sees a line as often as it occurs, "
            "validation and test once."
        )
    if rare:
        shown = re.sub(r"\s", "␣", "".join(map(chr, sorted(rare)[:20])))
        said.append(
            f"{len(rare):,} of {profile.symbols:,} characters occur fewer than {_RARE} times and "
            f"will hardly be learnt ({shown}{'…' if len(rare) > 20 else ''})."
        )
    if profile.format == "lines" and profile.longest_record > _LONG_LINE:
        said.append(
            f"The longest line has {profile.longest_record:,} characters; lines this long train "
            "slowly. If this is running text, use the format 'text'."
        )
    if profile.characters < _SMALL:
        said.append(
            f"{profile.characters:,} characters are few: the model may repeat them instead of "
            "learning from them. Ten thousand or more work better."
        )
    return replace(profile, warnings=tuple(said))
