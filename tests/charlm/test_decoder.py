"""A packed network gives what the network gives, and the same bits in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.charlm.cells import CELLS, Activation, Cell, cell_of
from app.charlm.decoder import Decoder, Row, bias_row
from app.charlm.kernels.sampling import log_total
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.number_format import PRECISIONS, Precision
from app.charlm.sampling import Sampling
from app.charlm.vocabulary import BOUNDARY
from app.errors import InvalidInput
from tests.charlm.reference import generate
from tests.charlm.reference import logits as logits_of

KINDS: list[tuple[Cell, Activation]] = [(c.name, c.activation or "tanh") for c in CELLS]
SYMBOLS = 13


def network_of(cell: Cell, activation: Activation = "tanh", layers: int = 2, size: int = 21
               ) -> CharNetwork:  # fmt: skip
    torch.manual_seed(layers)
    return CharNetwork(NetworkConfig(cell, layers, size, 7, 0.5, activation), SYMBOLS).eval()


@pytest.mark.parametrize(("cell", "activation"), KINDS)
@pytest.mark.parametrize(("layers", "size"), [(1, 5), (2, 33), (3, 64)])
def test_float32_is_the_network(cell: Cell, activation: Activation, layers: int, size: int) -> None:
    network = network_of(cell, activation, layers, size)
    decoder = Decoder.from_network(network, "float32")
    chars = torch.randint(0, SYMBOLS, (3, 20))
    with torch.inference_mode():
        logits, after = network(chars, network.initial_state(3))
    state = decoder.initial_state(3)
    for t in range(20):
        ours = logits_of(decoder, chars[:, t].numpy(), state)
        np.testing.assert_allclose(ours, logits[:, t].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(state, after.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", [c.name for c in CELLS if c.bounded])
def test_int8_is_close_to_the_network(cell: Cell) -> None:
    network = network_of(cell, size=64)
    chars = torch.randint(0, SYMBOLS, (8, 50))
    with torch.inference_mode():
        logits, _ = network(chars, network.initial_state(8))
    wanted = torch.log_softmax(logits, dim=2)[:, :-1].gather(2, chars[:, 1:, None])[..., 0]
    decoder = Decoder.from_network(network, "int8")
    rows = [row.numpy() for row in chars]
    reading = decoder.read(
        [row[:-1] for row in rows], decoder.initial_state(8), range(8), [row[1:] for row in rows]
    )
    assert abs(reading.logprobs_BT.mean() - wanted.mean().item()) < 0.002 * SYMBOLS
    assert decoder.nbytes < Decoder.from_network(network, "float32").nbytes


def test_int8_of_relu_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be float32 for rnn_relu cells"):
        Decoder.from_network(network_of("rnn", "relu"), "int8")


def test_a_relu_state_without_bound_stays_a_number() -> None:
    network = network_of("rnn", "relu", 2, 8)
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(30.0)
    decoder = Decoder.from_network(network, "float32")
    text = np.full(200, 3, dtype=np.int32)
    reading = decoder.read([text], decoder.initial_state(1), [0], [text])
    assert np.isfinite(reading.logprobs_BT).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_warming_up_changes_nothing(precision: Precision) -> None:
    decoder = Decoder.from_network(network_of("gru"), precision)
    before = logits_of(decoder, np.array([BOUNDARY]), decoder.initial_state(1))
    decoder.warm_up()
    assert np.array_equal(
        before, logits_of(decoder, np.array([BOUNDARY]), decoder.initial_state(1))
    )


def test_ranks_count_what_was_likelier() -> None:
    decoder = Decoder.from_network(network_of("gru"), "float32")
    logits = logits_of(decoder, np.array([BOUNDARY]), decoder.initial_state(1))[0]
    order = np.argsort(-logits)
    reading = decoder.read(
        [np.array([BOUNDARY])] * SYMBOLS,
        decoder.initial_state(SYMBOLS),
        range(SYMBOLS),
        [np.array([symbol]) for symbol in order],
    )
    assert reading.ranks_BT[:, 0].tolist() == list(range(1, SYMBOLS + 1))
    assert np.exp(reading.logprobs_BT).sum() == pytest.approx(1.0, abs=1e-12)


PACKED = {
    (cell, activation, precision): Decoder.from_network(network_of(cell, activation), precision)
    for cell, activation in KINDS
    for precision in PRECISIONS
    if precision == "float32" or cell_of(cell, activation).bounded
}
SEQUENCES = st.lists(st.lists(st.integers(0, SYMBOLS - 1), max_size=30), min_size=1, max_size=9)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("rows", "longest"), [(40, 9), (7, 150), (1, 200)])
def test_many_rows_and_long_texts_are_read_as_each_symbol_alone(
    precision: Precision, rows: int, longest: int
) -> None:
    decoder = Decoder.from_network(network_of("lstm", layers=2, size=64), precision)
    random = np.random.default_rng(rows)
    texts = [random.integers(0, SYMBOLS, random.integers(1, longest + 1)) for _ in range(rows)]
    together = decoder.initial_state(rows)
    whole = decoder.read(texts, together, range(rows), texts)
    for b in (0, rows // 2, rows - 1):
        alone = decoder.initial_state(1)
        logits = [logits_of(decoder, np.array([symbol]), alone)[0].copy() for symbol in texts[b]]
        readings = [
            float(each[symbol]) - log_total(each, SYMBOLS, np.empty(SYMBOLS))
            for each, symbol in zip(logits, texts[b], strict=True)
        ]
        assert np.array_equal(alone[0], together[b])
        assert whole.logprobs_BT[b, : len(texts[b])].tolist() == readings


@given(st.sampled_from(sorted(PACKED)), SEQUENCES, st.integers(1, 31))
def test_company_and_cuts_change_no_bit(
    which: tuple[Cell, Activation, Precision], sequences: list[list[int]], cut: int
) -> None:
    decoder = PACKED[which]
    arrays = [np.array(s, dtype=np.int32) for s in sequences]
    together = decoder.initial_state(len(arrays))
    slots = list(reversed(range(len(arrays))))
    whole = decoder.read(arrays, together, slots, arrays)
    for b, ids in enumerate(arrays):
        alone = decoder.initial_state(1)
        parts = [ids[i : i + cut] for i in range(0, len(ids), cut)]
        readings = [decoder.read([part], alone, [0], [part]).logprobs_BT[0] for part in parts]
        assert np.array_equal(alone[0], together[slots[b]])
        assert np.array_equal(
            np.concatenate([np.zeros(0), *readings]), whole.logprobs_BT[b, : len(ids)]
        )


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([(), ((3, 5.0),)]),
    seed=st.integers(0, 5),
)


@given(
    st.sampled_from(sorted(PACKED)),
    st.lists(st.tuples(SAMPLINGS, st.booleans(), st.integers(1, 12)), min_size=1, max_size=9),
)
def test_writing_together_in_any_steps_equals_the_plain_loop(
    which: tuple[Cell, Activation, Precision], wanted: list[tuple[Sampling, bool, int]]
) -> None:
    decoder = PACKED[which]
    rows = [
        Row(
            slot=slot,
            current=BOUNDARY,
            sampling=sampling,
            counts=np.zeros(SYMBOLS if sampling.counts_matter else 0, dtype=np.int32),
            biases=bias_row(sampling, SYMBOLS),
            boundary=boundary,
        )
        for slot, (sampling, boundary, _) in enumerate(wanted)
    ]
    state = decoder.initial_state(len(rows))
    texts: list[list[tuple[int, float]]] = [[] for _ in rows]
    quantum = 5
    for done in range(0, 12, quantum):
        live = [
            b
            for b, (_, _, most) in enumerate(wanted)
            if most > done and not (texts[b] and texts[b][-1][0] == BOUNDARY)
        ]
        steps = [min(quantum, wanted[b][2] - done) for b in live]
        drawn, logprobs = decoder.write([rows[b] for b in live], state, steps)[:2]
        for place, b in enumerate(live):
            pairs = zip(drawn[place].tolist(), logprobs[place].tolist(), strict=True)
            texts[b] += [pair for pair in pairs if pair[0] >= 0]
    for b, (sampling, boundary, most) in enumerate(wanted):
        nothing = np.zeros(0, dtype=np.int32)
        plain = generate(decoder, nothing, sampling, max_symbols=most, boundary=boundary)
        assert list(plain) == texts[b]


def test_a_prompt_shapes_what_follows() -> None:
    decoder = PACKED["lstm", "tanh", "float32"]
    prompt = np.array([4, 5, 6], dtype=np.int32)
    greedy = Sampling(temperature=0)
    first = next(generate(decoder, prompt, greedy, max_symbols=1, boundary=False))
    logits = decoder.initial_state(1)
    for symbol in (BOUNDARY, 4, 5, 6):
        last = logits_of(decoder, np.array([symbol]), logits)[0]
    assert first[0] == 2 + int(last[2:].argmax())
    assert list(generate(decoder, prompt, greedy, max_symbols=0, boundary=False)) == []
