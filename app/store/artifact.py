"""One model = one ``.safetensors`` file: the weights, and a JSON card in the header.

Takes a trained network and what is known about it and gives bytes; takes bytes,
a file or a stream that may be damaged or hostile and gives an ``Artifact``, or
raises ``InvalidArtifact`` with a sentence. The card says which tensors there
must be; names, shapes, dtypes, offsets and the file's size are held against it
before a tensor is allocated, values and digest after. The same artifact always
gives the same bytes. Knows no folder, name or version.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, BinaryIO, Final

import torch
from pydantic import ValidationError
from torch import Tensor

from app.charlm.network import CharNetwork, NetworkConfig
from app.charlm.scoring import Calibration
from app.charlm.vocabulary import Vocabulary
from app.errors import InvalidInput
from app.store.card import (
    Card,
    CorpusFormat,
    Lineage,
    Measured,
    Precision,
    library_versions,
    network_fields,
)
from app.store.header import (
    PREFIX,
    Entry,
    header_length,
    make_header,
    parse_header,
    parse_json,
    refuse,
)

__all__ = ["Artifact", "Card", "CorpusFormat", "Lineage", "Measured", "Precision", "read", "write"]

_DTYPES: Final[dict[str, tuple[str, torch.dtype]]] = {
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}


@dataclass(frozen=True)
class Artifact:
    """A card and the weights it describes, kept in the card's precision on the CPU.

    ``weights`` has the names and shapes of ``NetworkConfig.weight_shapes``.
    """

    card: Card
    weights: dict[str, Tensor]

    @classmethod
    def build(
        cls,
        network: CharNetwork | tuple[NetworkConfig, Mapping[str, Tensor]],
        vocabulary: Vocabulary,
        corpus_format: CorpusFormat,
        *,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        created_at: int | None = None,
        **fields: Any,
    ) -> Artifact:
        """An artifact of a network, or of its configuration and weights.

        ``fields`` are any of the card's others: trained_characters,
        dataset_sha256, seed, validation and test (``Measured``), run_id,
        lineage. ``created_at`` is now unless given, in Unix seconds.

        Raises InvalidInput when a weight is too large for ``precision``.
        """
        config, named = (
            (network.config, network.state_dict()) if isinstance(network, CharNetwork) else network
        )
        weights = {
            # A copy: what trains on must not change what its digest is taken of.
            name: named[name].detach().to("cpu", _DTYPES[precision][1], copy=True).contiguous()
            for name in config.weight_shapes(len(vocabulary))
        }
        if not _finite(weights):
            raise InvalidInput(
                f"A weight is not finite in {precision}; keep the model in float32, "
                "or train it again with a lower learning rate.",
                param="precision",
            )
        card = Card(
            **network_fields(config, vocabulary),
            corpus_format=corpus_format,
            precision=precision,
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
        # On the meta device nothing is allocated or drawn: the weights are assigned after.
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
    yield make_header(artifact.card.to_json(), _layout(artifact.card))
    for name in artifact.card.network.weight_shapes(artifact.card.symbols):
        yield _bytes_of(artifact.weights[name])


def write(artifact: Artifact) -> bytes:
    """The whole file."""
    return b"".join(chunks(artifact))


def read(source: bytes | BinaryIO) -> Artifact:
    """Read and check a model file; a stream must be seekable and is read from where it stands.

    Raises InvalidArtifact, whatever the bytes are.
    """
    stream: BinaryIO = BytesIO(source) if isinstance(source, bytes) else source
    start = stream.tell()
    size = stream.seek(0, 2) - start
    stream.seek(start)
    prefix = stream.read(PREFIX)
    header = stream.read(header_length(prefix, size))
    card_text, entries = parse_header(header)
    card = _card(card_text)
    _check_layout(card, entries, size - PREFIX - len(header))
    body = _room(size - PREFIX - len(header))
    if _fill(stream, body) != len(body):
        refuse("it ends before its last tensor")
    if hashlib.sha256(body).hexdigest() != card.weights_sha256:
        refuse("its weights are not those its card was written for (the digest differs)")
    weights = _tensors(card, body)
    if not _finite(weights):
        refuse("a weight is not a finite number")
    digest = hashlib.sha256(prefix + header)
    digest.update(body)
    return Artifact(
        card.model_copy(update={"size_bytes": size, "sha256": digest.hexdigest()}), weights
    )


def _card(text: str) -> Card:
    parse_json(text, "its card")
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        if where == "format_version":
            refuse("its card has another format version; a newer Charloom may read it")
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")[:300]
        refuse(f"its card is wrong ({where + ': ' if where else ''}{reason})")
    except ValueError:  # a lone surrogate, which is not UTF-8
        refuse("its card is not Unicode text")


def _layout(card: Card) -> dict[str, Entry]:
    """Where each tensor lies: in the network's order, without gaps."""
    name_of_dtype, dtype = _DTYPES[card.precision]
    entries, begin = {}, 0
    for name, shape in card.network.weight_shapes(card.symbols).items():
        end = begin + _count(shape) * dtype.itemsize
        entries[name] = Entry(name_of_dtype, shape, begin, end)
        begin = end
    return entries


def _check_layout(card: Card, entries: Mapping[str, Entry], body_size: int) -> None:
    expected = _layout(card)
    # This order exactly: one network has one layout, so one network has one file.
    if list(entries) != list(expected):
        refuse("its tensors are not those of the network that its card describes")
    for name, entry in entries.items():
        if entry != expected[name]:
            refuse(f"the tensor {name} has another type, shape or place than the card says")
    if body_size != max(entry.end for entry in expected.values()):
        refuse("its size is not the one that its card describes")


def _tensors(card: Card, body: bytearray) -> dict[str, Tensor]:
    """Views of ``body``, one for each tensor."""
    dtype = _DTYPES[card.precision][1]
    return {
        name: torch.frombuffer(
            body, dtype=dtype, count=_count(entry.shape), offset=entry.begin
        ).reshape(entry.shape)
        for name, entry in _layout(card).items()
    }


def _room(size: int) -> bytearray:
    """Memory for the weights, which the file is known to hold, be it with holes."""
    try:
        return bytearray(size)
    except MemoryError:
        refuse(f"its weights need {size:,} bytes of memory, and there are not as many")


def _fill(stream: BinaryIO, body: bytearray) -> int:
    """Read until ``body`` is full or the stream ends; how many bytes came."""
    view, filled = memoryview(body), 0
    while filled < len(body):
        piece = stream.read(min(1 << 20, len(body) - filled))
        if not piece:
            break
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    return filled


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in weights.values():
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
