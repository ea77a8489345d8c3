"""Any file becomes a corpus, or a message that says what to do."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from app.charlm.corpus.lines import LineCorpus
from app.charlm.corpus.text import TextCorpus
from app.charlm.vocabulary import Vocabulary
from app.errors import InvalidCorpus, NotFound, StorageFailed
from app.training.prepare import prepare

NAMED = [unicodedata.name(chr(point), "") for point in range(65, 1500)]
NAMES = "\n".join(sorted({name.split()[-1].lower() for name in NAMED if name}))


def write(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lines(tmp_path: Path) -> None:
    path = write(tmp_path, NAMES + "\n")
    prepared = prepare(path)
    assert isinstance(prepared.corpus, LineCorpus)
    records = [prepared.vocabulary.decode(r) for r in prepared.corpus.records("train")]
    assert set(records) < set(NAMES.split("\n"))
    assert "\n" not in prepared.vocabulary.characters
    profile = prepared.profile
    assert profile.format == "lines"
    assert profile.bytes == len(NAMES.encode()) + 1
    assert profile.records == profile.distinct_records == len(NAMES.split("\n"))
    assert profile.symbols == len(prepared.vocabulary) - 2
    assert profile.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_running_text(tmp_path: Path) -> None:
    text = "To be, or not to be, that is the question:\n\nWhether 'tis nobler\nin the mind\n" * 9
    prepared = prepare(write(tmp_path, text), validation_fraction=0.1, test_fraction=0)
    assert isinstance(prepared.corpus, TextCorpus)
    assert prepared.profile.format == "text"
    assert prepared.corpus.characters("train") + prepared.corpus.characters("validation") == len(
        text
    )
    records = [prepared.vocabulary.decode(r) for r in prepared.corpus.records("train")]
    assert records[:2] == [text.split("\n\n")[0], "Whether 'tis nobler"]


def test_the_format_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, NAMES)
    assert isinstance(prepare(path, format="text").corpus, TextCorpus)


def test_a_known_vocabulary_is_widened(tmp_path: Path) -> None:
    known = Vocabulary("zyx")
    widened = prepare(write(tmp_path, NAMES), known=known).vocabulary
    assert widened.characters.startswith("zyx")
    assert set(NAMES) - {"\n"} <= set(widened.characters)


# --- Bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "The text is empty"),
        ("a", r"has 1 characters; at least 20"),
        ("one line only", r"has 13 characters; at least 20"),
        (b"abc" * 10 + b"\xff" + b"def", r"not valid UTF-8: byte 30 \(0xff\).*iconv"),
        (b"caf\xe9", r"not valid UTF-8: byte 3 \(0xe9\)"),
        ("唐" * 9 + "\0" + "b" * 50, r"NUL at byte 27.*UTF-16"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, content: bytes | str, said: str
) -> None:
    with pytest.raises(InvalidCorpus, match=said):
        prepare(write(tmp_path, content))


def test_one_line_as_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCorpus, match=r"1 distinct lines.*format 'text'"):
        prepare(write(tmp_path, "a single line that is long enough"), format="lines")


def test_a_mark_and_foreign_line_ends_are_mended_and_mentioned(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + NAMES.replace("\n", "\r\n"))
    prepared = prepare(path)
    assert not set("\ufeff\r") & set(prepared.vocabulary.characters)
    assert prepared.profile.records == len(NAMES.split("\n"))
    assert [w for w in prepared.profile.warnings if "byte-order mark" in w]
    assert [w for w in prepared.profile.warnings if "line endings" in w]


def test_warnings_name_what_may_disappoint(tmp_path: Path) -> None:
    lines = "aa\nbb\ncc\naa\nq\n" + "x" * 1500
    warnings = " ".join(prepare(write(tmp_path, lines), format="lines").profile.warnings)
    for said in ("Repeated lines: 1.", "fewer than 3 times", "1,500 characters", "are few"):
        assert said in warnings


def test_twenty_thousand_distinct_characters(tmp_path: Path) -> None:
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    prepared = prepare(write(tmp_path, alphabet * 3))
    assert len(prepared.vocabulary) == 20_002
    assert any(r.dtype == np.uint16 for r in prepared.corpus.records("train"))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no file"):
        prepare(tmp_path / "nothing.txt")
    with pytest.raises(StorageFailed, match="cannot be read"):
        prepare(tmp_path)


def test_a_hundred_megabytes_on_one_line_fit_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(b"abcdefghij" * 100_000)
    code = (
        "import resource, sys; from pathlib import Path; from app.training.prepare import prepare\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"p = prepare(Path({str(path)!r}), scratch=Path({str(tmp_path)!r}))\n"
        "assert p.profile.format == 'text' and p.profile.longest_record == 10**8\n"
        "p.corpus.training_windows(0, 16, 100, 1)[5]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400_000, "KiB"
    assert [p.name for p in tmp_path.iterdir()] == ["long.txt"], "the scratch file has no name"
