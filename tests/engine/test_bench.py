"""The measurements measure: what they count is there, whatever the figures are."""

from __future__ import annotations

import pytest
import torch

from app.charlm.cells import Cell
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.number_format import Precision
from app.engine.bench import measure
from app.engine.floors import multiply_adds_per_second, streaming_seconds


@pytest.mark.parametrize(
    ("cell", "precision"), [("lstm", "int8"), ("gru", "float32"), ("rnn", "int8")]
)
def test_both_tasks_are_measured_at_every_size(cell: Cell, precision: Precision) -> None:
    torch.manual_seed(1)
    network = CharNetwork(NetworkConfig(cell, 2, 16, 8), 12)
    before = torch.get_num_threads()
    results = list(measure(network, precision, rows=(1, 9), threads=(1, 2), seconds=0.005))
    assert [(each.threads, each.task, each.rows) for each in results] == [
        (threads, task, rows)
        for threads in (1, 2)
        for task in ("writing", "scoring")
        for rows in (1, 9)
    ]
    for each in results:
        assert each.engine > 0
        assert each.plain > 0
        assert each.floor == min(each.streaming, each.arithmetic) > 0
        assert each.times_plain == each.engine / each.plain
        assert each.share_of_floor == each.engine / each.floor
    assert torch.get_num_threads() == before


def test_the_floors_are_rates_of_this_machine() -> None:
    # 64 times as much to read takes longer, on any machine.
    assert 0 < streaming_seconds(1 << 16) < streaming_seconds(1 << 22)
    assert multiply_adds_per_second(integers=True) > 1e6
    assert multiply_adds_per_second(integers=False) > 1e6
