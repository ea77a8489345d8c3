"""What a training was asked for on the command line, to be done here or as a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..charlm.corpus.format import CorpusFormat


@dataclass(frozen=True)
class Asked:
    """The options of ``charloom train``; None means not asked for."""

    name: str
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    validation_fraction: float
    test_fraction: float
    seed: int
    format: CorpusFormat | None
    base_model: str | None
    corpus: str | None

    @property
    def document(self) -> dict[str, Any]:
        """The same training as a job to submit, without its dataset."""
        training = {
            **self.training,
            "validation_fraction": self.validation_fraction,
            "test_fraction": self.test_fraction,
            "seed": self.seed,
        }
        return {
            "model": self.name,
            "network": dict(self.network),
            "training": {key: value for key, value in training.items() if value is not None},
            "base_model": self.base_model,
            "tags": {} if self.corpus is None else {"corpus": self.corpus},
        }
