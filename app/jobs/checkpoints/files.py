"""Checkpoints as files: safetensors with all other values as JSON in the header, no pickle.

Takes and returns ``charlm.Checkpoint``; files are written and read through a
``BlobStore``, which flushes them to the disk and reads them back. A file is
used only if its digest matches its row. Knows no SQL.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import safetensors.torch
import torch

from ...charlm.checkpoint import Checkpoint
from ...errors import InvalidInput
from ...store.blobs import Blob, BlobStore
from ..values import CheckpointInfo, CheckpointKind

_FACTS: Final = "facts"
_DTYPES: Final = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
_PREFIX: Final = 8  # bytes of the header's length, little-endian


def checkpoint_key(run_id: str, attempt: int, step: int, kind: CheckpointKind) -> str:
    """The key of a checkpoint in its store."""
    return f"{run_id}/{attempt}-{step}-{kind}.safetensors"


def store_checkpoint(blobs: BlobStore, key: str, checkpoint: Checkpoint) -> Blob:
    """Write a checkpoint; raises StorageFailed, and Conflict if the key is taken."""
    return blobs.put(key, _pieces(checkpoint))


def _pieces(checkpoint: Checkpoint) -> Iterator[bytes | memoryview]:
    """The file in pieces, without a second copy of the tensors.

    The format: https://huggingface.co/docs/safetensors (8 bytes, little-endian:
    the header's length; the header; the tensors without gaps).
    """
    tensors = checkpoint.tensors()
    facts = json.dumps(checkpoint.facts(), separators=(",", ":"))
    header: dict[str, Any] = {"__metadata__": {_FACTS: facts}}
    place = 0
    for name, tensor in tensors.items():
        end = place + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, end],
        }
        place = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    yield len(raw).to_bytes(_PREFIX, "little")
    yield raw
    for tensor in tensors.values():
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def load_checkpoint(blobs: BlobStore, info: CheckpointInfo) -> Checkpoint:
    """The checkpoint of a row; raises NotFound, StorageFailed, InvalidInput if it has changed."""
    with blobs.open(info.uri) as stream:
        raw = stream.read()
    if hashlib.sha256(raw).hexdigest() != info.sha256:
        raise InvalidInput("its file is not the one that was written.", code="invalid_checkpoint")
    # The digest matches: this is what store_checkpoint wrote.
    length = int.from_bytes(raw[:_PREFIX], "little")
    header: dict[str, Any] = json.loads(raw[_PREFIX : _PREFIX + length])
    facts = json.loads(header["__metadata__"][_FACTS])
    return Checkpoint.restore(safetensors.torch.load(raw), facts)
