"""Rows divided among threads: every row once, errors told, the same bits."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.decoder import Decoder, Row
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.sampling import Sampling
from app.charlm.workers import LEAST_ROWS, Workers


@given(st.integers(0, 300), st.integers(1, 9))
def test_shares_are_those_of_a_stride_and_hold_every_row(rows: int, threads: int) -> None:
    shares = Workers(threads).shares(rows)
    assert [place for start, stop in shares for place in range(start, stop)] == list(range(rows))
    assert len(shares) <= threads
    assert [stop - start for start, stop in shares] == [
        len(range(rows)[part :: len(shares)]) for part in range(len(shares))
    ]
    assert len(shares) == 1 or rows // len(shares) >= LEAST_ROWS


def test_work_runs_side_by_side() -> None:
    workers, both = Workers(2), threading.Barrier(2, timeout=10)

    def work(start: int, stop: int) -> None:
        both.wait()

    workers.run(work, [(0, 1), (1, 2)])
    workers.close()
    workers.run(work, [(0, 1), (1, 2)])  # after closing, anew
    workers.close()


@pytest.mark.parametrize("wrong", [0, 4])
def test_an_error_comes_out_when_all_have_ended(wrong: int) -> None:
    ended = []

    def work(start: int, stop: int) -> None:
        if start == wrong:
            raise RuntimeError(f"share {start}")
        ended.append(stop)

    workers = Workers(2)
    with pytest.raises(RuntimeError, match=f"share {wrong}"):
        workers.run(work, [(0, 4), (4, 8)])
    assert len(ended) == 1
    workers.close()


def test_threads_change_no_bit() -> None:
    torch.manual_seed(3)
    network = CharNetwork(NetworkConfig("lstm", 2, 64, 5), 9).eval()
    decoder = Decoder.from_network(network, "int8")
    random = np.random.default_rng(5)
    texts = [random.integers(2, 9, random.integers(1, 30)) for _ in range(53)]
    nothing = np.zeros(0, dtype=np.int32)

    def everything(workers: Workers) -> tuple[object, ...]:
        state_BLS = decoder.initial_state(53)
        reading = decoder.read(texts, state_BLS, range(53), texts, top=2, workers=workers)
        rows = [
            Row(b, 5, Sampling(seed=b), nothing, np.zeros(0, dtype=np.float32)) for b in range(53)
        ]
        writing = decoder.write(rows, state_BLS, [b + 3 for b in range(53)], workers=workers)
        workers.close()
        masked = [reading.logprobs_BT[b, : len(text)].tolist() for b, text in enumerate(texts)]
        return masked, writing.ids_BQ.tolist(), writing.logprobs_BQ.tolist(), state_BLS.tolist()

    assert everything(Workers(1)) == everything(Workers(2)) == everything(Workers(3))
