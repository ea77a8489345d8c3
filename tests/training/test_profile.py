"""A description is exact and the same as that of the corpus, in memory that no text can raise."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.corpus import hashing
from app.charlm.corpus.format import CorpusFormat
from app.errors import InvalidCorpus
from app.training import distinct, survey
from app.training.prepare import prepare
from app.training.profile import Profile, describe

TEXTS = st.lists(st.sampled_from(["a", "bc", "a" * 30, "唐", "\n", "\n", "\r\n"]), max_size=60)
MEGABYTES = 64
SIZE = MEGABYTES << 20
ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz\n", dtype=np.uint8)

# The most lines, the most empty lines, very many distinct lines, and one line.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "tiny lines": lambda: b"a\n" * (SIZE // 2),
    "empty lines": lambda: b"\n" * SIZE,
    "distinct lines": lambda: np.random.default_rng(1).choice(ALPHABET, SIZE).tobytes(),
    "one line": lambda: b"ab" * (SIZE // 2),
}


@given(TEXTS, st.sampled_from(["lines", "text", None]), st.sampled_from([1, 3, 1000]))
def test_a_description_is_that_of_the_corpus_and_of_a_simple_count(
    parts: list[str], format: CorpusFormat | None, size: int
) -> None:
    text = "".join(parts)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "text"
        path.write_bytes(text.encode())
        whole = _profile_or_words(lambda: prepare(path, format=format).profile)
        patch.setattr(survey, "_PIECE", size)
        patch.setattr(hashing, "_BLOCK", size)
        patch.setattr(distinct, "_IN_MEMORY", size)
        profile = _profile_or_words(lambda: describe(path, format=format))
    assert profile == whole
    if isinstance(profile, str):
        return
    filled = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    assert profile.records == len(filled)
    if profile.format == "lines":
        assert profile.distinct_records == len(set(filled))
    assert profile.longest_record == max(map(len, filled), default=0)
    typical = int(np.quantile([len(line) for line in filled], 0.95)) + 1 if filled else 1
    assert profile.typical_length == typical


def _profile_or_words(read: Callable[[], Profile]) -> Profile | str:
    try:
        return read()
    except InvalidCorpus as error:
        return str(error)


@pytest.mark.parametrize("shape", HOSTILE)
def test_a_text_of_any_shape_is_described_in_little_memory(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(HOSTILE[shape]())
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from app.errors import InvalidCorpus; from app.training.profile import describe\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: describe(Path(sys.argv[1]), format='lines', scratch=Path(sys.argv[1]).parent)\n"
        "except InvalidCorpus: pass\n"  # too few distinct lines, which is known at the end
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3 * MEGABYTES * 1024, "KiB"
