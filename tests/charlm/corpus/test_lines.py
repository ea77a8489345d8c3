"""Independent records: the hashed split, duplicates, the windows."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.corpus import lines as corpus_lines
from app.charlm.corpus.lines import LineCorpus
from app.charlm.corpus.windows import IGNORED, SplitName, Window, smallest_id_type
from app.charlm.vocabulary import BOUNDARY, Vocabulary, code_points
from app.errors import InvalidCorpus
from tests.models import vocabulary_of

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

LINES = st.lists(st.text("abc唐", max_size=40), min_size=3, max_size=60).filter(
    lambda lines: len(set(lines) - {""}) >= 3
)


def corpus_of(
    lines: list[str], *, seed: int = 1, fraction: float = 0.2
) -> tuple[LineCorpus, Vocabulary]:
    vocabulary = vocabulary_of("".join(lines))
    parts = [np.append(vocabulary.encode(line), BOUNDARY) for line in lines]
    points = np.append(np.zeros(2, dtype=np.uint32), code_points(vocabulary.characters))
    ids = np.concatenate(parts).astype(smallest_id_type(len(vocabulary)))
    corpus = LineCorpus(
        ids, points, seed=seed, validation_fraction=fraction, test_fraction=fraction
    )
    return corpus, vocabulary


def texts(corpus: LineCorpus, vocabulary: Vocabulary, split: SplitName) -> list[str]:
    return [vocabulary.decode(r) for r in corpus.records(split)]


def read(windows: list[Window], vocabulary: Vocabulary) -> list[str]:
    """Put the records that windows teach together again, checking inputs on the way."""
    done: list[str] = []
    rows: list[list[int]] = []
    for window in windows:
        if window.reset_B.all():
            rows = [[] for _ in window.inputs_BT]
        assert window.reset_B.all() or not window.reset_B.any()
        for row, (inputs, targets) in enumerate(
            zip(window.inputs_BT, window.targets_BT, strict=True)
        ):
            for given_id, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
                if wanted == IGNORED:
                    continue
                assert given_id == (rows[row][-1] if rows[row] else BOUNDARY)
                rows[row].append(wanted)
                if wanted == BOUNDARY:
                    done.append(vocabulary.decode(rows[row]))
    return done


@given(LINES, st.integers(0, 5))
def test_distinct_lines_are_split_and_none_is_lost(lines: list[str], seed: int) -> None:
    corpus, vocabulary = corpus_of(lines, seed=seed)
    parts = [texts(corpus, vocabulary, split) for split in SPLITS]
    assert sorted(itertools.chain(*parts)) == sorted(set(lines) - {""})
    assert all(parts)
    assert corpus.duplicates == len([line for line in lines if line]) - len(set(lines) - {""})


def test_adding_lines_moves_no_other_line_even_with_new_characters() -> None:
    old = [f"line {i}" for i in range(2000)]
    before, v1 = corpus_of(old)
    after, v2 = corpus_of(["!new 唐", *old, "#another"])
    for split in ("validation", "test"):
        assert set(texts(before, v1, split)) <= set(texts(after, v2, split))
    assert abs(before.characters("validation") / before.characters("train") - 1 / 3) < 0.05


@given(LINES, st.integers(1, 9), st.integers(1, 20))
def test_training_reads_every_record_as_often_as_it_occurred(
    lines: list[str], rows: int, window: int
) -> None:
    corpus, vocabulary = corpus_of(lines)
    windows = corpus.training_windows(0, rows, window, seed=3)
    seen = Counter(read(list(windows), vocabulary))
    train = set(texts(corpus, vocabulary, "train"))
    wanted = Counter(line for line in lines if line in train)
    assert set(seen) == set(wanted)
    # The last batch is filled up with records of the same pass, fewer than a batch.
    assert 0 <= (seen - wanted).total() < rows
    assert not wanted - seen
    assert corpus.characters("train") == sum((len(k) + 1) * n for k, n in wanted.items())


def test_an_epoch_is_deterministic_and_differs_from_the_next() -> None:
    corpus, _ = corpus_of([f"{i:b}".replace("0", "a").replace("1", "b") for i in range(99)])
    one, same, other = (corpus.training_windows(e, 8, 5, seed=1) for e in (0, 0, 1))
    assert all(np.array_equal(a.inputs_BT, b.inputs_BT) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a.inputs_BT, b.inputs_BT) for a, b in zip(one, other))  # noqa: B905


@given(LINES, st.integers(1, 9), st.integers(1, 20))
def test_evaluation_reads_every_distinct_record_once(
    lines: list[str], rows: int, window: int
) -> None:
    corpus, vocabulary = corpus_of(lines)
    for split in SPLITS:
        windows = list(corpus.evaluation_windows(split, rows, window))
        assert sorted(read(windows, vocabulary)) == sorted(texts(corpus, vocabulary, split))
        if split != "train":
            assert sum(w.characters for w in windows) == corpus.characters(split)


def test_evaluation_can_be_bounded() -> None:
    corpus, vocabulary = corpus_of([f"{i:b}" for i in range(400)])
    some = read(list(corpus.evaluation_windows("validation", 4, 16, limit=50)), vocabulary)
    assert 0 < sum(map(len, some)) <= 50


def test_the_last_line_needs_no_end() -> None:
    vocabulary = Vocabulary("ab")
    points = np.array([0, 0, 97, 98], dtype=np.uint32)
    ids = np.array([2, 1, 3, 1, 2, 3], dtype=np.uint8)
    corpus = LineCorpus(ids, points)
    everything = itertools.chain(*(texts(corpus, vocabulary, s) for s in SPLITS))
    assert sorted(everything) == ["a", "ab", "b"]


def test_a_test_split_can_be_left_out() -> None:
    ids = np.array([2, 1, 3, 1, 2, 3, 1], dtype=np.uint8)
    corpus = LineCorpus(ids, np.array([0, 0, 97, 98], dtype=np.uint32), test_fraction=0)
    assert corpus.characters("test") == 0
    assert list(corpus.evaluation_windows("test", 4, 8)) == []


@given(LINES, st.integers(1, 30), st.integers(1, 9))
def test_merging_in_parts_changes_nothing(lines: list[str], piece: int, merged: int) -> None:
    whole, vocabulary = corpus_of(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_lines, "_PIECE", piece)
        patch.setattr(corpus_lines, "_MERGED_AT_ONCE", merged)
        parts, _ = corpus_of(lines)
    assert parts.duplicates == whole.duplicates
    for split in SPLITS:
        assert texts(parts, vocabulary, split) == texts(whole, vocabulary, split)
        assert parts.characters(split) == whole.characters(split)
    one, other = (corpus.training_windows(1, 4, 8, seed=2) for corpus in (parts, whole))
    assert all(np.array_equal(a.targets_BT, b.targets_BT) for a, b in zip(one, other, strict=True))


def test_repeated_and_empty_lines_cost_next_to_nothing() -> None:
    code = """
import resource
import numpy as np
from app.charlm.corpus import lines as corpus_lines
from app.charlm.corpus.lines import LineCorpus
ids = np.tile(np.array([2, 1, 3, 1, 1, 1, 4, 1], dtype=np.uint8), 4 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert LineCorpus(ids, np.array([0, 0, 97, 98, 99], dtype=np.uint32)).duplicates
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200_000, "KiB, for 12 million lines and as many empty ones"


@pytest.mark.parametrize("ids", [[], [1, 1], [2, 1, 2, 1]])
def test_too_few_lines_are_refused_with_the_numbers(ids: list[int]) -> None:
    with pytest.raises(InvalidCorpus, match=r"has [01] distinct lines; at least 3"):
        LineCorpus(np.array(ids, dtype=np.uint8), np.array([0, 0, 97], dtype=np.uint32))


def test_many_long_lines_are_hashed_in_blocks() -> None:
    count, length = 9, 1_000_001
    ids = np.full((count, length), 2, dtype=np.uint8)
    ids[np.arange(count), np.arange(count)] = 3
    ids[:, -1] = BOUNDARY
    corpus = LineCorpus(ids.reshape(-1), np.array([0, 0, 97, 98], dtype=np.uint32))
    assert corpus.duplicates == 0


def test_ids_take_the_smallest_type() -> None:
    assert [smallest_id_type(n) for n in (256, 257, 65536, 65537)] == [
        np.uint8,
        np.uint16,
        np.uint16,
        np.uint32,
    ]
