"""Small true models for tests: untrained networks of a few numbers, as artifacts."""

from __future__ import annotations

from typing import Any

import torch

from app.charlm.corpus.format import CorpusFormat
from app.charlm.network import CharNetwork
from app.charlm.network_config import NetworkConfig
from app.charlm.scoring import Calibration
from app.charlm.vocabulary import Vocabulary
from app.store.artifact import Artifact
from app.store.card import WeightDtype


def vocabulary_of(text: str) -> Vocabulary:
    """The distinct characters of ``text`` in code point order."""
    return Vocabulary("".join(sorted(set(text))))


def tiny_artifact(
    *,
    seed: int = 1,
    characters: str = "abc",
    weight_dtype: WeightDtype = "float32",
    config: NetworkConfig | None = None,
    format: CorpusFormat = "lines",
    **fields: Any,
) -> Artifact:
    """A model with random weights; the same arguments give the same bytes."""
    vocabulary = vocabulary_of(characters)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CharNetwork(
            config or NetworkConfig(cell="gru", hidden_size=4, embedding_size=3), len(vocabulary)
        )
    return Artifact.build(
        network,
        vocabulary,
        format,
        weight_dtype=weight_dtype,
        created_at=1_700_000_000,
        **{"seed": seed, "calibration": Calibration((0.5, 1.0, 2.5)), **fields},
    )
