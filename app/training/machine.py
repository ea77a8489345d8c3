"""What this machine offers for training: its speed, memory, threads and GPUs."""

from __future__ import annotations

import os
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

import psutil
import torch

from ..charlm.device import pick_device
from ..charlm.speed import measure_speed

_SHARE: Final = 0.8  # of all memory; the rest is for serving and the system
_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_measuring = threading.Lock()


def machine_speed(threads: int) -> float:
    """Training operations per second on ``threads`` threads; the first call takes a second."""
    with _measuring:
        return _speed(threads)


@lru_cache(maxsize=8)
def _speed(threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return measure_speed(time.monotonic, pick_device("auto"))
    finally:
        torch.set_num_threads(before)


def memory_limit() -> int:
    """The bytes of memory that a job may use: the GPU's if there is one, else the machine's."""
    if pick_device("auto").type == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory * _SHARE)
    total = psutil.virtual_memory().total
    for path in _CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # not in a container, or "max"
            continue
    return int(total * _SHARE)


def gpus() -> list[str]:
    """The GPUs that runners may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return given.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]


def training_threads(threads: int, slots: int) -> int:
    """Threads for each of ``slots`` trainings, so that one is left for serving."""
    return max(1, (threads - 1) // max(1, slots))
