"""int8 is served when it costs nothing that matters, float32 otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.charlm.decoder import Decoder
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.precision import compare_precisions
from app.charlm.sampling import Sampling
from tests.charlm.reference import generate

RECORDS = [np.random.default_rng(n).integers(2, 30, 40).astype(np.int32) for n in range(60)]


def test_int8_is_chosen_for_a_well_behaved_network() -> None:
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig("lstm", 1, 64, 16), 30)
    comparison = compare_precisions(network, RECORDS, closed=True)
    assert comparison.precision == "int8"
    assert comparison.int8_loss is not None
    assert abs(comparison.int8_loss) < 0.001


def test_float32_is_chosen_when_rounding_would_cost() -> None:
    """Records that the network itself wrote: any other distribution needs more nats."""
    torch.manual_seed(0)
    network = CharNetwork(NetworkConfig("gru", 2, 32, 16), 30)
    with torch.no_grad():  # one huge weight in each row leaves little of the others in eight bits
        network.output.weight.mul_(8)
        network.output.weight[:, 0] = 500
    exact = Decoder.from_network(network, "float32")
    nothing = np.zeros(0, dtype=np.int32)
    records = [
        np.array([i for i, _ in generate(exact, nothing, Sampling(seed=n), max_symbols=60,
                                         boundary=False)])
        for n in range(60)
    ]  # fmt: skip
    comparison = compare_precisions(network, records, closed=False)
    assert comparison.precision == "float32"
    assert comparison.int8_loss is not None
    assert comparison.int8_loss > 0.001
    assert compare_precisions(network, records, closed=False, symbols=100) != comparison


def test_relu_is_served_in_float32() -> None:
    network = CharNetwork(NetworkConfig("rnn", 1, 8, 4, activation="relu"), 30)
    assert compare_precisions(network, RECORDS, closed=True) == ("float32", None)


def test_nothing_to_compare_with() -> None:
    network = CharNetwork(NetworkConfig("rnn", 1, 8, 4), 30)
    assert compare_precisions(network, [], closed=False).int8_loss == pytest.approx(0.0)
