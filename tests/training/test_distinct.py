"""Hashes are counted exactly, in memory and beyond it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from app.errors import StorageFailed
from app.training import distinct
from app.training.distinct import count_distinct


@pytest.mark.parametrize("held", [1, 7, 100, 1 << 20])
def test_the_count_is_exact(held: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distinct, "_IN_MEMORY", held)
    random = np.random.default_rng(3)
    for kinds in (1, 5, 3000):
        kept = random.integers(0, 2**64, kinds, dtype=np.uint64)
        kept[0] = 2**64 - 1
        batches = [kept[random.integers(0, kinds, size)] for size in (0, 50, 1, 400, 3000)]
        wanted = len({int(each) for batch in batches for each in batch})
        assert count_distinct(iter(batches), tmp_path) == wanted
    assert count_distinct(iter([]), None) == 0
    assert list(tmp_path.iterdir()) == [], "the scratch file has no name"


def test_a_full_disk_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distinct, "_IN_MEMORY", 10)
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 (closed by what uses it)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full)
    with pytest.raises(StorageFailed, match=r"cannot be counted: No space left"):
        count_distinct([np.arange(100, dtype=np.uint64)], tmp_path)
