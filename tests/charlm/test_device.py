"""Which device trains."""

from __future__ import annotations

import pytest
import torch

from app.charlm.device import pick_device
from app.errors import InvalidInput


def test_auto_takes_what_is_there() -> None:
    there = {"cpu"}
    if torch.cuda.is_available():
        there = {"cuda"}
    elif torch.backends.mps.is_available():
        there = {"mps"}
    assert pick_device("auto").type in there
    assert pick_device("cpu").type == "cpu"


def test_what_is_not_there_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match=r"'cuda' is not available .*; choose .*cpu"):
        pick_device("cuda")
