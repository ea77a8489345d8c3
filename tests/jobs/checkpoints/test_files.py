"""Checkpoints as files: what comes back is what went in, and a changed file is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import safetensors
import torch

from app.charlm.checkpoint import Checkpoint
from app.errors import InvalidInput
from app.jobs.checkpoints.files import checkpoint_key, load_checkpoint, store_checkpoint
from app.jobs.values import CheckpointInfo
from app.store.blobs import Blob, BlobStore

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def checkpoint() -> Checkpoint:
    return Checkpoint(
        weights={"output.weight": torch.arange(6.0).reshape(2, 3).T},
        optimizer={"0.step": torch.tensor(3.0), "0.exp_avg": torch.ones(3, 2)},
        best_weights={},
        state_BLS=torch.zeros(0, 1, 4),
        best_nats=None,
        best_step=0,
        since_best=0,
        step=7,
        epoch=1,
        place=3,
        elapsed_seconds=0.1 + 0.2,
        trained_characters=2**40,
        plan=((3, 10), (5, 12)),
    )


def info(blob: Blob) -> CheckpointInfo:
    return CheckpointInfo(
        "x", RUN, 1, 7, 1, "periodic", blob.key, blob.size_bytes, blob.sha256, {}, 0
    )


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path))
    blob = store_checkpoint(blobs, checkpoint_key(RUN, 1, 7, "periodic"), checkpoint())
    found = load_checkpoint(blobs, info(blob))
    before, after = checkpoint().tensors(), found.tensors()
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    assert set(before) == set(after)
    assert found.facts() == checkpoint().facts()
    assert blob.key == f"{RUN}/1-7-periodic.safetensors"


def test_others_can_read_the_file(tmp_path: Path) -> None:
    blob = store_checkpoint(BlobStore(str(tmp_path)), "a.safetensors", checkpoint())
    with safetensors.safe_open(tmp_path / blob.key, "pt") as file:
        assert set(file.keys()) == set(checkpoint().tensors())
        assert "facts" in file.metadata()


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_a_changed_file_is_refused(tmp_path: Path, place: int) -> None:
    blobs = BlobStore(str(tmp_path))
    blob = store_checkpoint(blobs, "a.safetensors", checkpoint())
    raw = bytearray((tmp_path / "a.safetensors").read_bytes())
    raw[place] ^= 1
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(InvalidInput, match="not the one that was written"):
        load_checkpoint(blobs, info(blob))
    (tmp_path / "a.safetensors").write_bytes(io.BytesIO(raw).read(40))
    with pytest.raises(InvalidInput):
        load_checkpoint(blobs, info(blob))
