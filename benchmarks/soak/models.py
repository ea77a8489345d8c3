"""Untrained models of several shapes, some of lines and some of text."""

from __future__ import annotations

from typing import Final

import torch

from app.charlm.cells import Cell
from app.charlm.corpus.format import CorpusFormat
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.vocabulary import Vocabulary
from app.store.artifact import Artifact
from benchmarks.loads import CHARACTERS

FILE_SHAPES: Final[tuple[tuple[Cell, int, int], ...]] = (
    ("gru", 1, 64),
    ("lstm", 1, 256),
    ("lstm", 2, 256),
    ("gru", 1, 512),
    ("lstm", 1, 512),
    ("rnn", 1, 1024),
)
"""Cell, layers, size. Together they need about twice the memory that the server is given."""


def artifact(shape: tuple[Cell, int, int], *, seed: int) -> Artifact:
    """A model that knows every character of the load; line models have an odd seed."""
    cell, layers, size = shape
    vocabulary = Vocabulary("".join(sorted(CHARACTERS)))
    torch.manual_seed(seed)
    network = CharNetwork(NetworkConfig(cell, layers, size, 64), len(vocabulary))
    form: CorpusFormat = "lines" if seed % 2 else "text"
    return Artifact.build(network, vocabulary, form, serving_precision="int8")
