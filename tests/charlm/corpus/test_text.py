"""A running text: the split, the windows of training and of evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.corpus import text as corpus_text
from app.charlm.corpus.text import TextCorpus
from app.charlm.corpus.windows import IGNORED, SplitName
from app.charlm.vocabulary import BOUNDARY
from app.errors import InvalidCorpus, InvalidInput


def counting(total: int) -> np.ndarray:
    """Ids that tell their place: 2, 3, 4, …"""
    return np.arange(2, total + 2, dtype=np.uint32)


def test_the_split_runs_from_front_to_back() -> None:
    corpus = TextCorpus(counting(100), validation_fraction=0.1, test_fraction=0.2)
    splits: list[SplitName] = ["train", "validation", "test"]
    assert [corpus.characters(split) for split in splits] == [70, 10, 20]
    assert [next(corpus.records(s))[0] - 2 for s in splits] == [0, 70, 80]
    assert corpus.beginning("validation", 3).tolist() == [72, 73, 74]


def test_a_split_is_never_empty_unless_asked() -> None:
    corpus = TextCorpus(counting(20), validation_fraction=0.01, test_fraction=0)
    assert corpus.characters("validation") == 1
    assert corpus.characters("test") == 0
    assert list(corpus.evaluation_windows("test", 4, 8)) == []


def test_too_short_a_text_is_refused_with_the_numbers() -> None:
    with pytest.raises(InvalidCorpus, match="has 1 characters; at least 20"):
        TextCorpus(counting(1))


@pytest.mark.parametrize(
    ("validation", "test", "field"),
    [(0.0, 0.1, "validation"), (0.5, 0.1, "validation"), (0.1, -0.1, "test"), (0.1, 0.9, "test")],
)
def test_an_impossible_fraction_is_named(validation: float, test: float, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        TextCorpus(counting(99), validation_fraction=validation, test_fraction=test)
    assert caught.value.param == f"training.{field}_fraction"


@given(
    total=st.integers(20, 3000),
    rows=st.integers(1, 9),
    window=st.integers(1, 70),
    epoch=st.integers(0, 3),
)
def test_training_windows_read_on_where_the_last_one_ended(
    total: int, rows: int, window: int, epoch: int
) -> None:
    corpus = TextCorpus(counting(total))
    windows = corpus.training_windows(epoch, rows, window, seed=7)
    assert len(windows) >= 1
    train = corpus.characters("train")
    ends = None
    for index, each in enumerate(windows):
        inputs = each.inputs_BT.copy()
        inputs[each.reset_B, 0] = each.targets_BT[each.reset_B, 0] - 1
        assert (each.targets_BT == inputs + 1).all()
        assert (each.inputs_BT[each.reset_B, 0] == BOUNDARY).all()
        assert each.targets_BT.max() < train + 2
        assert index > 0 or each.reset_B.all()
        if ends is not None:
            assert (inputs[:, 0] == ends).all()
        ends = each.targets_BT[:, -1]


def test_the_same_seed_and_epoch_give_the_same_windows_from_any_place() -> None:
    corpus = TextCorpus(counting(5000))
    once = list(corpus.training_windows(3, 4, 16, seed=1))
    again = corpus.training_windows(3, 4, 16, seed=1)
    for index in reversed(range(len(once))):
        for field in ("inputs_BT", "targets_BT", "reset_B"):
            assert np.array_equal(getattr(once[index], field), getattr(again[index], field))
    other = corpus.training_windows(4, 4, 16, seed=1)
    assert not np.array_equal(once[0].inputs_BT, other[0].inputs_BT)
    assert len(again[1:3]) == 2
    with pytest.raises(IndexError):
        again[len(again)]


def test_rows_are_reset_now_and_then() -> None:
    windows = TextCorpus(counting(50_000)).training_windows(0, 10, 5, seed=1)
    resets = np.mean([each.reset_B for each in windows[1:]])
    assert 0.01 < resets < 0.03


@given(total=st.integers(20, 5000), rows=st.integers(1, 9), window=st.integers(1, 300))
def test_evaluation_counts_every_character_once_and_in_context(
    total: int, rows: int, window: int
) -> None:
    corpus = TextCorpus(counting(total), validation_fraction=0.4, test_fraction=0)
    counted: list[int] = []
    for each in corpus.evaluation_windows("validation", rows, window):
        assert each.inputs_BT.shape == each.targets_BT.shape
        keep = each.targets_BT != IGNORED
        counted += each.targets_BT[keep].tolist()
        before = each.inputs_BT[keep]
        assert ((before == each.targets_BT[keep] - 1) | (before == BOUNDARY)).all()
    first = corpus.characters("train")
    assert sorted(counted) == list(range(first + 2, total + 2))


def test_evaluation_rows_warm_up_before_they_count() -> None:
    corpus = TextCorpus(counting(20_000), validation_fraction=0.4, test_fraction=0)
    windows = list(corpus.evaluation_windows("validation", 4, 100))
    starts = [int((w.targets_BT[1] != IGNORED).any()) for w in windows].index(1)
    assert starts * 100 >= 512
    cold = [i for i, w in enumerate(windows) if w.reset_B[0]]
    assert cold == [0, starts], "the first row starts cold at its first counted character"
    assert windows[starts].inputs_BT[0, 0] == BOUNDARY
    assert (windows[0].inputs_BT[:, 0] == BOUNDARY).all(), "as training starts every row"


def test_evaluation_can_be_bounded() -> None:
    corpus = TextCorpus(counting(1000), validation_fraction=0.4)
    assert sum(w.characters for w in corpus.evaluation_windows("validation", 3, 9, 50)) == 50


def test_records_are_the_lines_without_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.array([3, 3, 2, 2, 4, 2] * 5, dtype=np.uint8)
    corpus = TextCorpus(ids, newline_id=2, validation_fraction=0.2, test_fraction=0.2)
    assert [r.tolist() for r in corpus.records("train")] == [[3, 3], [4]] * 3
    for searched in (1, 2, 3, 5):
        monkeypatch.setattr(corpus_text, "_SEARCHED_AT_ONCE", searched)
        assert [r.tolist() for r in corpus.records("train")] == [[3, 3], [4]] * 3
