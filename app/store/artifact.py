"""A model in one ``.safetensors`` file: the weights, and a JSON card in the header.

Writes a trained network and its card as bytes; reads bytes, a file or a stream as an
``Artifact`` after ``model_file`` has checked them. The same artifact always gives the same
bytes. Knows no folder, name or version.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from ..charlm.corpus.format import CorpusFormat
from ..charlm.network import CharNetwork
from ..charlm.network_config import NetworkConfig
from ..charlm.scoring import Calibration
from ..charlm.vocabulary import Vocabulary
from ..errors import InvalidInput
from .card import Card, Lineage, Measured, WeightDtype, library_versions, network_fields
from .header import make_header
from .model_file import check, count, layout

__all__ = ["Artifact", "Card", "Lineage", "Measured", "WeightDtype", "chunks", "read", "write"]

_DTYPES: Final[dict[WeightDtype, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


#: A network, or its configuration and weights.
_Network = CharNetwork | tuple[NetworkConfig, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Artifact:
    """A card and the weights it describes, kept as the card's ``weight_dtype`` on the CPU.

    ``weights`` has the names and shapes of ``NetworkConfig.weight_shapes``.
    """

    card: Card
    weights: dict[str, Tensor]

    @classmethod
    def build(
        cls,
        network: _Network,
        vocabulary: Vocabulary,
        corpus_format: CorpusFormat,
        *,
        weight_dtype: WeightDtype = "float32",
        calibration: Calibration | None = None,
        created_at: int | None = None,
        **fields: Any,
    ) -> Artifact:
        """An artifact of a network, or of its configuration and weights.

        ``fields`` are other fields of the card: trained_characters, dataset_sha256, seed,
        validation and test (``Measured``), run_id, lineage. ``created_at`` is in Unix seconds,
        by default now. Raises InvalidInput when a weight is not finite in ``weight_dtype``.
        """
        config, weights = _stored(network, len(vocabulary), weight_dtype)
        card = Card(
            **network_fields(config, vocabulary),
            corpus_format=corpus_format,
            precision=weight_dtype,  # by its alias
            weights_sha256=_digest(weights),
            calibration=calibration and calibration.quantiles,
            created_at=int(time.time()) if created_at is None else created_at,
            libraries=library_versions(),
            **fields,
        )
        return cls(card, weights)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.card.vocabulary)

    @property
    def calibration(self) -> Calibration | None:
        return None if self.card.calibration is None else Calibration(self.card.calibration)

    def network(self) -> CharNetwork:
        """A network with these weights in float32, in evaluation mode."""
        # On the meta device nothing is allocated or initialised: the weights are assigned below.
        with torch.device("meta"):
            network = CharNetwork(self.card.network, self.card.symbols)
        weights = {name: weight.float().clone() for name, weight in self.weights.items()}
        if self.card.tied:
            weights["output.weight"] = weights["embedding.weight"]
        network.load_state_dict(weights, assign=True)
        if self.card.tied:
            network.output.weight = network.embedding.weight
        return network.eval()


def chunks(artifact: Artifact) -> Iterator[bytes | memoryview]:
    """The file's bytes in order, without a second copy of the weights."""
    yield make_header(artifact.card.to_json(), layout(artifact.card))
    for name in artifact.card.network.weight_shapes(artifact.card.symbols):
        yield _bytes_of(artifact.weights[name])


def write(artifact: Artifact) -> bytes:
    """The whole file."""
    return b"".join(chunks(artifact))


def read(source: bytes | BinaryIO) -> Artifact:
    """Read and check a model file; a stream must be seekable and is read from its current position.

    Raises InvalidArtifact for any bytes that are not a valid model.
    """
    card, body = check(source)
    return Artifact(card, _tensors(card, body))


def _stored(
    network: _Network, symbols: int, weight_dtype: WeightDtype
) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """The configuration and copies of the weights as ``weight_dtype``.

    Raises InvalidInput if a weight is not finite.
    """
    if isinstance(network, CharNetwork):
        network = network.config, network.state_dict()
    config, weights = network
    stored = {
        # A copy: training that continues must not change weights whose digest is taken.
        name: weights[name].detach().to("cpu", _DTYPES[weight_dtype], copy=True).contiguous()
        for name in config.weight_shapes(symbols)
    }
    if not _finite(stored):
        raise InvalidInput(
            f"A weight is not finite in {weight_dtype}; keep the model in float32, "
            "or train it again with a lower learning rate.",
            param="precision",
        )
    return config, stored


def _tensors(card: Card, body: bytearray) -> dict[str, Tensor]:
    """The tensors as views of ``body``."""
    dtype = _DTYPES[card.weight_dtype]
    return {
        name: torch.frombuffer(
            body, dtype=dtype, count=count(entry.shape), offset=entry.begin
        ).reshape(entry.shape)
        for name, entry in layout(card).items()
    }


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in weights.values():
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
