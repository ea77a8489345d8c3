"""What is in a text, in numbers and in warnings in plain words.

``describe`` reads a file twice at most and keeps none of it: the memory it needs depends
neither on the text's size nor on its shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..charlm.corpus.format import CorpusFormat
from ..charlm.corpus.hashing import Hashes, hashed_lines, values_of
from ..charlm.corpus.lines import check_records
from ..charlm.corpus.text import check_characters
from ..charlm.vocabulary import code_points
from .distinct import count_distinct
from .line_lengths import guess_format
from .survey import NEWLINE, Survey, survey, text_pieces

_LONG_LINE: Final = 1000
_SMALL: Final = 10_000
_RARE: Final = 3


@dataclass(frozen=True)
class Profile:
    """What is in a text; ``records`` counts its lines that are not empty.

    Every number is exact, but for two different lines with the same 64-bit hash, which count
    as one in ``distinct_records``: among ten million lines that happens with probability 3e-6.
    """

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


def describe(
    path: Path, *, format: CorpusFormat | None = None, scratch: Path | None = None
) -> Profile:
    """Describe a file, which must be fit for training; ``format`` is guessed when None.

    ``scratch`` is the folder for a temporary file if very many lines are distinct. Raises
    InvalidCorpus, saying what is wrong and what to do, NotFound and StorageFailed.
    """
    found = survey(path)
    form: CorpusFormat = format or guess_format(found.lines)
    if form == "text":
        check_characters(found.characters)
        return profile_of(found, form, None)
    distinct = count_distinct((lines.hashes for lines in hashed_lines(_values(path))), scratch)
    check_records(distinct)
    return profile_of(found, form, distinct)


def _values(path: Path) -> Iterator[Hashes]:
    return (values_of(code_points(text), NEWLINE) for text in text_pieces(path))


def profile_of(found: Survey, form: CorpusFormat, distinct_records: int | None) -> Profile:
    """The profile of a surveyed text."""
    records = found.lines.filled
    profile = Profile(
        bytes=found.bytes,
        characters=found.characters,
        records=records,
        distinct_records=distinct_records,
        symbols=len(found.counts) - (form == "lines" and NEWLINE in found.counts),
        longest_record=found.lines.longest,
        typical_length=int(found.lines.quantile(0.95)) + 1 if records else 1,
        sha256=found.digest.hexdigest(),
        format=form,
    )
    return _with_warnings(profile, found)


def _with_warnings(profile: Profile, survey: Survey) -> Profile:
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
