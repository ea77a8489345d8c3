"""The device to train on: the CPU, or a GPU if there is one."""

from __future__ import annotations

import torch

from ..errors import InvalidInput
from .schedule import DeviceName


def pick_device(name: DeviceName) -> torch.device:
    """The device of this name; ``auto`` is the fastest one present.

    Raises InvalidInput if the device is not on this machine.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present.get(name):
        there = " or ".join(kind for kind, is_there in present.items() if is_there)
        raise InvalidInput(
            f"device {name!r} is not available on this machine; choose {there}.",
            param="device",
            code="device_not_found",
        )
    return torch.device(name)
