"""What is seen inside a network is what the network holds, symbol by symbol."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.charlm.cells import CELLS
from app.charlm.decoder import Decoder
from app.charlm.inspection import inspect
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.vocabulary import BOUNDARY

SYMBOLS = 9
IDS = np.array([2, 7, 7, 0, 3], dtype=np.int32)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.kernel)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_states_are_those_of_the_network(cell: object, layer: int) -> None:
    torch.manual_seed(1)
    config = NetworkConfig(cell.name, 2, 21, 5, 0.0, cell.activation or "tanh")  # type: ignore[attr-defined]
    network = CharNetwork(config, SYMBOLS).eval()
    decoder = Decoder.from_network(network, "float32")
    units = np.array([20, 0, 3])
    state = network.initial_state(1)
    hidden, cells, wanted = [], [], []
    with torch.inference_mode():
        for symbol in [BOUNDARY, *IDS.tolist()]:
            logits, state = network(torch.tensor([[symbol]]), state)
            hidden.append(state[0, layer, units].numpy())
            cells.append(state[0, layer, units + 21].numpy() if config.state_size > 21 else 0)
            wanted.append(torch.log_softmax(logits[0, 0], 0).sort(descending=True))
    seen = inspect(decoder, IDS, layer=layer, kind="hidden", units=units, top=4)
    assert seen is not None
    np.testing.assert_allclose(seen.values_TU, hidden, rtol=0, atol=1e-5)
    for place, (logprobs, ids) in enumerate(wanted):
        assert seen.ids_TN[place].tolist() == ids[:4].tolist()
        np.testing.assert_allclose(seen.logprobs_TN[place], logprobs[:4], rtol=0, atol=1e-4)
    if config.state_size > 21:
        seen = inspect(decoder, IDS, layer=layer, kind="cell", units=units, top=1)
        assert seen is not None
        np.testing.assert_allclose(seen.values_TU, cells, rtol=0, atol=1e-5)


def test_an_empty_text_has_its_beginning() -> None:
    network = CharNetwork(NetworkConfig("gru", 1, 8, 4), SYMBOLS).eval()
    decoder = Decoder.from_network(network, "int8")
    seen = inspect(decoder, IDS[:0], layer=0, kind="hidden", units=np.arange(8), top=20)
    assert seen is not None
    assert seen.values_TU.shape == (1, 8)
    assert seen.ids_TN.shape == (1, 20)
    assert (seen.ids_TN[0, SYMBOLS:] == -1).all()


def test_it_stops_when_it_is_told_to() -> None:
    network = CharNetwork(NetworkConfig("gru", 1, 8, 4), SYMBOLS).eval()
    decoder = Decoder.from_network(network, "int8")
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) == 3

    seen = inspect(decoder, IDS, layer=0, kind="hidden", units=np.arange(8), top=1, stopped=stopped)
    assert seen is None
    assert len(asked) == 3
