"""A trained network packed for inference: many rows, each as if it were alone.

Takes ids, gives logprobs or drawn symbols; the state it is handed is changed in
place. In ``int8`` the weights are rounded to 8 bits and the hidden state to
1/127 wherever it enters a product; ``float32`` rounds nothing more than the
network does. In both, what a row gives does not depend, bit for bit, on the
rows beside it or on how a text is cut into calls.

The product of the first layer's input weights with each embedding is a table:
the input of a character network has only V values.

Shapes: B rows, T time steps, Q drawn symbols, V symbols, L layers, S state
width, H hidden (P when padded to 16), G gates, N = G·P padded to 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

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
from .packing import pack_network
from .sampling import Sampling
from .workers import ALONE, Workers

Precision = Literal["float32", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
Floats = NDArray[np.float32]

_BLOCK: Final = 64
"""Symbols read together, layer by layer, when there are fewer rows."""


class Reading(NamedTuple):
    """Logprobs of given symbols in float64 nats, and ranks from 1.

    The N likeliest symbols in the place of each come likeliest first (−1: there
    are no more).
    """

    logprobs_BT: NDArray[np.float64]
    ranks_BT: NDArray[np.int32]
    top_ids_BTN: NDArray[np.int32]
    top_logprobs_BTN: NDArray[np.float64]


class Writing(NamedTuple):
    """Drawn ids (−1 where nothing was drawn), their logprobs in nats, the likeliest symbols."""

    ids_BQ: NDArray[np.int32]
    logprobs_BQ: NDArray[np.float64]
    top_ids_BQN: NDArray[np.int32]
    top_logprobs_BQN: NDArray[np.float64]


@dataclass
class Row:
    """One sequence being written: its place in the state and how it draws.

    ``current`` is the last symbol of the text so far, which the state has not
    read yet; ``position`` counts drawn symbols and picks their random numbers;
    ``boundary`` tells whether the record may end. ``counts`` [V] says how often
    each symbol was drawn (empty when no penalty asks).
    """

    slot: int
    current: int
    sampling: Sampling
    counts: NDArray[np.int32]
    biases: Floats
    choice: int = 0
    position: int = 0
    boundary: bool = True


class Decoder:
    """A packed network. ``state_BLS`` arrays belong to the caller.

    One instance may be used by several threads at once, on different rows.
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

        Raises InvalidInput for int8 where the hidden state has no fixed range to
        round in (relu).
        """
        config = network.config
        cell, integers = config.descriptor, precision == "int8"
        if integers and not cell.bounded:
            raise InvalidInput(
                f"a {cell.activation} network is served in float32 only: its state has no fixed "
                "range.",
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
        """Compile everything: seconds the first time on a machine, then at once."""
        state_BLS = self.initial_state(1)
        nothing = np.zeros(0, dtype=np.int32)
        self.read([nothing], state_BLS, [0])
        row = Row(0, 0, Sampling(), nothing, np.zeros(0, dtype=np.float32))
        self.write([row], state_BLS, [0])

    def initial_state(self, rows: int) -> Floats:
        """States [rows, L, S] that have read nothing."""
        return np.zeros((rows, self.layers, self.state_size), dtype=np.float32)

    def read(
        self,
        sequences: Sequence[NDArray[np.integer[Any]]],
        state_BLS: Floats,
        slots: Sequence[int],
        targets: Sequence[NDArray[np.integer[Any]]] | None = None,
        *,
        top: int = 0,
        workers: Workers = ALONE,
    ) -> Reading:
        """Let row ``slots[b]`` read ``sequences[b]``; lengths may differ.

        With ``targets`` (of the same lengths), gives the logprob and the rank
        of targets[b][t] after reading sequences[b][..t], and the ``top``
        likeliest symbols there; else empty arrays.
        """
        by_length = sorted(range(len(sequences)), key=lambda b: -len(sequences[b]))
        shares = workers.shares(len(by_length))
        # Lengths fall within a share, and every share gets long and short ones.
        order = [b for part in range(len(shares)) for b in by_length[part :: len(shares)]]
        lengths = np.array([len(sequences[b]) for b in order], dtype=np.int64)
        longest = int(lengths.max(initial=0))
        shape = (len(order), longest)
        wanted = targets is not None
        ids, goals = (np.zeros(shape if w else (0, 0), dtype=np.int32) for w in (True, wanted))
        for row, b in enumerate(order):
            ids[row, : lengths[row]] = sequences[b]
            if targets is not None:
                goals[row, : lengths[row]] = targets[b]
        logprobs, ranks = np.zeros(goals.shape), np.zeros(goals.shape, dtype=np.int32)
        tops = np.zeros((*goals.shape, top), dtype=np.int32)
        top_logprobs = np.zeros(tops.shape)
        places = np.array([slots[b] for b in order], dtype=np.int64)

        def work(a: int, z: int) -> None:
            stepping.read(
                self._weights, self._scratch(z - a, longest), self._kernel, self.hidden_size,
                self.symbols, ids[a:z], lengths[a:z], state_BLS, places[a:z], goals[a:z],
                logprobs[a:z], ranks[a:z], tops[a:z], top_logprobs[a:z],
            )  # fmt: skip

        workers.run(work, shares)
        back = np.argsort(order) if wanted else np.zeros(0, dtype=np.int64)
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

        The logprobs are the network's own, before temperature and everything else; with
        each come the ``top`` likeliest symbols. The rows are brought up to date:
        the last symbol drawn is their ``current``, not yet read.
        """
        count = len(rows)
        symbols = self.symbols
        any_counts = any(len(row.counts) for row in rows)
        any_biases = any(len(row.biases) for row in rows)
        counts = np.zeros((count, symbols if any_counts else 0), dtype=np.int32)
        biases = np.zeros((count, symbols if any_biases else 0), dtype=np.float32)
        for b, row in enumerate(rows):
            counts[b, : len(row.counts)] = row.counts
            biases[b, : len(row.biases)] = row.biases
        current = np.array([row.current for row in rows], dtype=np.int32)
        positions = np.array([row.position for row in rows], dtype=np.int64)
        drawn = np.full((count, max(steps, default=0)), -1, dtype=np.int32)
        logprobs = np.zeros(drawn.shape)
        tops = np.zeros((*drawn.shape, top), dtype=np.int32)
        top_logprobs = np.zeros(tops.shape)
        slots = np.array([row.slot for row in rows], dtype=np.int64)
        most = np.array(steps, dtype=np.int64)
        integers, floats = _integers(rows), _floats(rows)

        def work(a: int, z: int) -> None:
            stepping.write(
                self._weights, self._scratch(z - a), self._kernel, self.hidden_size, symbols,
                state_BLS, slots[a:z], current[a:z], most[a:z], positions[a:z], integers[a:z],
                floats[a:z], counts[a:z], biases[a:z], drawn[a:z], logprobs[a:z], tops[a:z],
                top_logprobs[a:z],
            )  # fmt: skip

        workers.run(work, workers.shares(count))
        for b, row in enumerate(rows):
            row.current, row.position = int(current[b]), int(positions[b])
            row.counts[:] = counts[b, : len(row.counts)]
        return Writing(drawn, logprobs, tops, top_logprobs)

    def _scratch(self, rows: int, steps: int = 1) -> stepping.Scratch:
        """Room for ``rows`` rows, and for several of their steps if the rows are few."""
        width = padded(self.hidden_size, LANES)
        panels = self._weights.hidden[0]
        kind = np.uint8 if self.precision == "int8" else np.float32
        outputs, room = panels.shape[1] * LANES, room_for(rows)
        places = room_for(max(rows, min(rows * steps, _BLOCK)))
        return stepping.Scratch(
            np.zeros((places, width), dtype=kind),
            np.zeros((room, width), dtype=kind),
            np.empty((places, outputs), dtype=np.float32),
            np.empty((room, outputs), dtype=np.float32),
            np.empty((places, padded(self.symbols, GROUP)), dtype=np.float32),
            np.empty(self.symbols, dtype=np.float64),
            CONFIGURATION,
        )


def _integers(rows: Sequence[Row]) -> NDArray[np.int64]:
    return np.array(
        [[r.sampling.seed, r.choice, r.sampling.top_k, int(r.boundary)] for r in rows],
        dtype=np.int64,
    ).reshape(-1, 4)


def _floats(rows: Sequence[Row]) -> NDArray[np.float64]:
    settings = [row.sampling for row in rows]
    return np.array(
        [
            [s.temperature, s.top_p, s.min_p, s.frequency_penalty, s.presence_penalty]
            for s in settings
        ],
        dtype=np.float64,
    ).reshape(-1, 5)
