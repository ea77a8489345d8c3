"""Scores add up, do not depend on chunks or company, and percentiles mean something."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.charlm import scoring
from app.charlm.decoder import Decoder
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.scoring import Calibration, Score, batches, calibrate, score

torch.manual_seed(1)
DECODER = Decoder.from_network(CharNetwork(NetworkConfig("gru", 1, 9, 5), 5), "float32")


def ids(*symbols: int) -> np.ndarray:
    return np.array(symbols, dtype=np.int32)


def test_the_probabilities_of_all_records_sum_to_one() -> None:
    """All records of up to three symbols, and all that begin with three."""
    total = 0.0
    for length in range(4):
        records = [ids(*r) for r in itertools.product((0, 2, 3, 4), repeat=length)]
        for each in score(DECODER, records, closed=length < 3):
            total += math.exp(-each.nats)
    assert total == pytest.approx(1.0, abs=1e-12)


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=20), min_size=1, max_size=5),
    st.booleans(),
    st.integers(1, 21),
)
def test_chunks_and_company_change_nothing(
    records: list[list[int]], closed: bool, chunk: int
) -> None:
    arrays = [ids(*record) for record in records]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_CHUNK", chunk)
        together = score(DECODER, arrays, closed=closed)
    for array, each in zip(arrays, together, strict=True):
        (alone,) = score(DECODER, [array], closed=closed)
        assert np.array_equal(alone.logprobs, each.logprobs)
        assert np.array_equal(alone.ranks, each.ranks)
        assert alone.symbols == len(array) + closed


def test_measures_are_their_formulas() -> None:
    each = Score(np.array([-1.0, -3.0]), np.array([1, 2], dtype=np.int32))
    assert each.nats == 4
    assert each.bits_per_character == pytest.approx(2 / math.log(2))
    assert each.perplexity == pytest.approx(math.exp(2))
    nothing = Score(np.zeros(0), np.zeros(0, dtype=np.int32))
    assert (nothing.nats, nothing.bits_per_character, nothing.perplexity) == (0, 0, 1)
    assert score(DECODER, [], closed=True) == []


def test_a_percentile_is_the_share_of_less_surprising_records() -> None:
    calibration = Calibration((1.0, 2.0, 3.0, 5.0, 9.0))
    assert [calibration.percentile(b) for b in (0.5, 1.0, 2.5, 4.0, 9.0, 10.0)] == [
        0.0,
        0.0,
        37.5,
        62.5,
        100.0,
        100.0,
    ]


def test_calibration_ranks_the_records_it_was_made_of() -> None:
    random = np.random.default_rng(0)
    records = [random.integers(2, 5, size=n).astype(np.int32) for n in random.integers(0, 9, 400)]
    calibration = calibrate(DECODER, records, closed=True)
    assert calibration is not None
    assert list(calibration.quantiles) == sorted(calibration.quantiles)
    full = [r for r in records if len(r)]
    bits = [s.bits_per_character for b in batches(full) for s in score(DECODER, b, closed=True)]
    percentiles = [calibration.percentile(b) for b in bits]
    assert np.histogram(percentiles, 4, (0, 100))[0].min() > 0.2 * len(full)
    assert calibrate(DECODER, [ids()], closed=True) is None
