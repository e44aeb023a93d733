"""The network, and its checkpoint: config.json beside model.safetensors, read strictly."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrain_assets.errors import CheckpointError
from retrain_assets.models.checkpoint_folders import CONFIG, check_weights, existing, stored_weights
from retrain_assets.models.configs import read_config
from retrain_assets.models.nlinear.bases import LOOKBACK, STEPS

SHAPE = {"lookback": LOOKBACK, "steps": STEPS}
"""What config.json says."""


class NLinear(nn.Module):
    """The next closes' moves from the last, and how sure they are, out of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(LOOKBACK, 2 * STEPS)

    def forward(self, closes: Tensor) -> tuple[Tensor, Tensor]:
        """Closes (W, LOOKBACK) -> mean and variance of those that follow, (W, STEPS) each."""
        last = closes[:, -1:]
        move, spread = self.mix(closes - last).chunk(2, dim=1)
        return last + move, F.softplus(spread)


def load_network(folder: Path) -> NLinear:
    """A checkpoint on the CPU, in evaluation mode, weights frozen.

    Raises CheckpointError naming the file or weight at fault.
    """
    path = existing(folder, CONFIG)
    if (found := read_config(path)) != SHAPE:
        raise CheckpointError(f"{path} describes {found}, and NLinear is {SHAPE}")
    weights, source = stored_weights(folder)
    with torch.device("meta"):  # shapes without values: no random numbers are spent
        network = NLinear()
    check_weights(network.state_dict(), weights, source)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)
