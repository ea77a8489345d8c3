"""A trained network packed for inference: many rows, each computed as if it were alone.

Takes ids, gives logprobs or drawn symbols; changes the caller's state in place. In
``int8`` the weights are rounded to 8 bits, and the hidden state to multiples of 1/127
wherever it enters a product; ``float32`` rounds no more than the network does. In both,
a row's results do not depend, bit for bit, on the other rows or on how a text is cut
into calls.

The product of the first layer's input weights with each embedding is a table, because
the input of a character network has only V values.

Shapes: B rows, T time steps, Q drawn symbols, V symbols, L layers, S state
width, H hidden (P when padded to 16), G gates, N = G·P padded to 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from .kernels import stepping
from .kernels.amx import CONFIGURATION
from .kernels.cells import kernel_number
from .kernels.llvm import LANES
from .kernels.products import padded, room_for
from .kernels.vectors import GROUP
from .network import CharNetwork
from .number_format import Precision
from .packing import pack_network
from .sampling import Sampling
from .vocabulary import Ids
from .workers import ALONE, Workers

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_READ_TOGETHER: Final = 64
"""Symbols to read together, layer by layer, when there are fewer rows than that."""


class Reading(NamedTuple):
    """Logprobs of given symbols in float64 nats, and their ranks from 1.

    For each position also the N likeliest symbols, likeliest first (−1 where the
    vocabulary has fewer).
    """

    logprobs_BT: Doubles
    ranks_BT: Ints
    top_ids_BTN: Ints
    top_logprobs_BTN: Doubles


class Writing(NamedTuple):
    """Drawn ids (−1 where nothing was drawn), their logprobs in nats, and the likeliest symbols."""

    ids_BQ: Ints
    logprobs_BQ: Doubles
    top_ids_BQN: Ints
    top_logprobs_BQN: Doubles


@dataclass
class Row:
    """One sequence being written: its slot in the state and how its symbols are drawn.

    ``current`` is the last symbol of the text so far, which the state has not read yet;
    ``position`` counts drawn symbols and selects their random numbers; ``boundary`` says
    whether the boundary may be drawn. ``counts`` [V] holds how often each symbol was drawn
    (empty without penalties).
    """

    slot: int
    current: int
    sampling: Sampling
    counts: Ints
    biases: Floats
    choice: int = 0
    position: int = 0
    boundary: bool = True


class Decoder:
    """A packed network. The caller owns the ``state_BLS`` arrays.

    Several threads may use one instance at once, on different rows.
    """

    def __init__(
        self,
        weights: stepping.Weights,
        *,
        precision: Precision,
        kernel: int,
        units: int,
        state_size: int,
        symbols: int,
    ) -> None:
        self._weights = weights
        self._kernel = kernel
        self.precision = precision
        self.hidden_size = units
        self.state_size = state_size
        self.symbols = symbols
        self.layers: int = weights.hidden[0].shape[0]

    @classmethod
    def from_network(cls, network: CharNetwork, precision: Precision) -> Decoder:
        """Pack a network.

        Raises InvalidInput for int8 if the hidden state has no fixed range in which to
        round it (relu).
        """
        config = network.config
        cell, integers = config.descriptor, precision == "int8"
        if integers and not cell.bounded:
            raise InvalidInput(
                f"precision must be float32 for {cell.kernel} cells: their hidden state has no "
                "fixed range.",
                param="precision",
            )
        return cls(
            pack_network(network, integers=integers),
            precision=precision,
            kernel=kernel_number(cell),
            units=config.hidden_size,
            state_size=config.state_size,
            symbols=network.symbols,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        groups = (self._weights.hidden, self._weights.input, self._weights.output)
        return int(self._weights.table_VN.nbytes + sum(a.nbytes for g in groups for a in g))

    def warm_up(self) -> None:
        """Compile all kernels: takes seconds the first time on a machine, then almost none."""
        state_BLS = self.initial_state(1)
        nothing = np.zeros(0, dtype=np.int32)
        self.read([nothing], state_BLS, [0])
        row = Row(0, 0, Sampling(), nothing, np.zeros(0, dtype=np.float32))
        self.write([row], state_BLS, [0])

    def initial_state(self, rows: int) -> Floats:
        """States [rows, L, S] of rows that have read nothing: zeros."""
        return np.zeros((rows, self.layers, self.state_size), dtype=np.float32)

    def read(
        self,
        sequences: Sequence[Ids],
        state_BLS: Floats,
        slots: Sequence[int],
        targets: Sequence[Ids] | None = None,
        *,
        top: int = 0,
        workers: Workers = ALONE,
    ) -> Reading:
        """Read ``sequences[b]`` on row ``slots[b]``; lengths may differ.

        With ``targets`` (of the same lengths), gives the logprob and rank of targets[b][t]
        after reading sequences[b][..t], and the ``top`` likeliest symbols there; else [0, 0].
        """
        shares = workers.shares(len(sequences))
        order, lengths, ids, goals = _rectangles(sequences, targets, len(shares))
        logprobs, ranks, tops, top_logprobs = _empty_reading(goals.shape, top)
        places = np.array([slots[b] for b in order], dtype=np.int64)

        def work(a: int, z: int) -> None:
            stepping.read(
                self._weights, self._scratch(z - a, ids.shape[1]), self._kernel, self.hidden_size,
                self.symbols, ids[a:z], lengths[a:z], state_BLS, places[a:z], goals[a:z],
                logprobs[a:z], ranks[a:z], tops[a:z], top_logprobs[a:z],
            )  # fmt: skip

        workers.run(work, shares)
        back = np.argsort(order) if targets is not None else np.zeros(0, dtype=np.int64)
        return Reading(logprobs[back], ranks[back], tops[back], top_logprobs[back])

    def write(
        self,
        rows: Sequence[Row],
        state_BLS: Floats,
        steps: Sequence[int],
        *,
        top: int = 0,
        workers: Workers = ALONE,
    ) -> Writing:
        """Draw up to ``steps[b]`` symbols on each row, ending a row at the boundary.

        The logprobs are the network's own, unchanged by ``Sampling``, each with the ``top``
        likeliest symbols. Updates the rows: the last symbol drawn is ``current``, not yet read.
        """
        slots, current, positions, integers, floats = _row_arrays(rows)
        counts, biases = _counts_and_biases(rows, self.symbols)
        writing = drawn, logprobs, tops, top_logprobs = _empty_writing(len(rows), steps, top)
        most = np.array(steps, dtype=np.int64)

        def work(a: int, z: int) -> None:
            stepping.write(
                self._weights, self._scratch(z - a), self._kernel, self.hidden_size, self.symbols,
                state_BLS, slots[a:z], current[a:z], most[a:z], positions[a:z], integers[a:z],
                floats[a:z], counts[a:z], biases[a:z], drawn[a:z], logprobs[a:z], tops[a:z],
                top_logprobs[a:z],
            )  # fmt: skip

        workers.run(work, workers.shares(len(rows)))
        _update(rows, current, positions, counts)
        return writing

    def _scratch(self, rows: int, steps: int = 1) -> stepping.Scratch:
        """Arrays for ``rows`` rows, and for several of their steps if there are few rows."""
        width = padded(self.hidden_size, LANES)
        panels = self._weights.hidden[0]
        kind = np.uint8 if self.precision == "int8" else np.float32
        outputs, room = panels.shape[1] * LANES, room_for(rows)
        places = room_for(max(rows, min(rows * steps, _READ_TOGETHER)))
        return stepping.Scratch(
            np.zeros((places, width), dtype=kind),
            np.zeros((room, width), dtype=kind),
            np.empty((places, outputs), dtype=np.float32),
            np.empty((room, outputs), dtype=np.float32),
            np.empty((places, padded(self.symbols, GROUP)), dtype=np.float32),
            np.empty(self.symbols, dtype=np.float64),
            CONFIGURATION,
        )


def _rectangles(
    sequences: Sequence[Ids], targets: Sequence[Ids] | None, shares: int
) -> tuple[list[int], Longs, Ints, Ints]:
    """The order of the rows, their lengths [B], ids [B, T] and targets [B, T] or [0, 0].

    Rows are padded with zeros. Within a share the lengths fall, and every share gets long
    and short rows.
    """
    by_length = sorted(range(len(sequences)), key=lambda b: -len(sequences[b]))
    order = [b for part in range(shares) for b in by_length[part::shares]]
    lengths = np.array([len(sequences[b]) for b in order], dtype=np.int64)
    shape = (len(order), int(lengths.max(initial=0)))
    ids = np.zeros(shape, dtype=np.int32)
    goals = np.zeros((0, 0) if targets is None else shape, dtype=np.int32)
    for row, b in enumerate(order):
        ids[row, : lengths[row]] = sequences[b]
        if targets is not None:
            goals[row, : lengths[row]] = targets[b]
    return order, lengths, ids, goals


def bias_row(sampling: Sampling, symbols: int) -> Floats:
    """The logit biases as one row [V], or [0] if there are none.

    Raises InvalidInput for a symbol that the network does not have.
    """
    row = np.zeros(symbols if sampling.logit_bias else 0, dtype=np.float32)
    for symbol_id, value in sampling.logit_bias:
        if not 0 <= symbol_id < symbols:
            raise InvalidInput(
                f"logit_bias names symbol {symbol_id}, but the model's symbols are 0 to "
                f"{symbols - 1}.",
                param="logit_bias",
                code="out_of_range",
            )
        row[symbol_id] = value
    return row


def _empty_reading(shape: tuple[int, ...], top: int) -> Reading:
    tops = np.zeros((*shape, top), dtype=np.int32)
    return Reading(np.zeros(shape), np.zeros(shape, dtype=np.int32), tops, np.zeros(tops.shape))


def _empty_writing(rows: int, steps: Sequence[int], top: int) -> Writing:
    drawn = np.full((rows, max(steps, default=0)), -1, dtype=np.int32)
    tops = np.zeros((*drawn.shape, top), dtype=np.int32)
    return Writing(drawn, np.zeros(drawn.shape), tops, np.zeros(tops.shape))


def _row_arrays(rows: Sequence[Row]) -> tuple[Longs, Ints, Longs, Longs, Doubles]:
    """Slots, current symbols and positions [B]; integers [B, 4] and floats [B, 5].

    ``stepping.write`` lists the integers and floats.
    """
    return (
        np.array([row.slot for row in rows], dtype=np.int64),
        np.array([row.current for row in rows], dtype=np.int32),
        np.array([row.position for row in rows], dtype=np.int64),
        _integers(rows),
        _floats(rows),
    )


def _counts_and_biases(rows: Sequence[Row], symbols: int) -> tuple[Ints, Floats]:
    """Both as [B, V], zeros for rows that have none; [B, 0] if no row has any."""
    any_counts = any(len(row.counts) for row in rows)
    any_biases = any(len(row.biases) for row in rows)
    counts = np.zeros((len(rows), symbols if any_counts else 0), dtype=np.int32)
    biases = np.zeros((len(rows), symbols if any_biases else 0), dtype=np.float32)
    for b, row in enumerate(rows):
        counts[b, : len(row.counts)] = row.counts
        biases[b, : len(row.biases)] = row.biases
    return counts, biases


def _update(rows: Sequence[Row], current_B: Ints, positions_B: Longs, counts_BV: Ints) -> None:
    """Store what writing changed in the rows."""
    for b, row in enumerate(rows):
        row.current, row.position = int(current_B[b]), int(positions_B[b])
        row.counts[:] = counts_BV[b, : len(row.counts)]


def _integers(rows: Sequence[Row]) -> Longs:
    return np.array(
        [[r.sampling.seed, r.choice, r.sampling.top_k, int(r.boundary)] for r in rows],
        dtype=np.int64,
    ).reshape(-1, 4)


def _floats(rows: Sequence[Row]) -> Doubles:
    settings = [row.sampling for row in rows]
    return np.array(
        [
            [s.temperature, s.top_p, s.min_p, s.frequency_penalty, s.presence_penalty]
            for s in settings
        ],
        dtype=np.float64,
    ).reshape(-1, 5)
