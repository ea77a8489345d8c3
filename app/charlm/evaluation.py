"""Measure a network on windows of text.

Takes a network and windows in order, gives ``Measures``. Shapes: B rows, T time
steps, V symbols, L layers, S state width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from .corpus.windows import IGNORED, Window
from .measures import Measures
from .network import CharNetwork


@torch.inference_mode()
def evaluate(network: CharNetwork, windows: Iterable[Window]) -> Measures | None:
    """Measure a network on windows in order; None if they hold no character.

    Has no side effects: draws no random number and restores the network's mode. The
    number of rows may change only at a window that resets all rows.
    """
    was_training = network.training
    network.eval()
    device = network.output.bias.device
    total_nats, correct, characters = 0.0, 0, 0
    state_BLS = network.initial_state(0)
    for window in windows:
        chars_BT = torch.from_numpy(window.inputs_BT).to(device)
        targets_BT = torch.from_numpy(window.targets_BT).to(device)
        state_BLS = network.reset_rows(state_BLS, window.reset_B)
        logits_BTV, state_BLS = network(chars_BT, state_BLS)
        losses = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(),
            targets_BT.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        # Sum on the CPU: not every GPU has float64.
        total_nats += losses.cpu().double().sum().item()
        correct += int((logits_BTV.argmax(dim=2) == targets_BT).sum())
        characters += window.characters
    network.train(was_training)
    return Measures(total_nats, correct, characters) if characters else None
