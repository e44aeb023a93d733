"""Toto checkpoints on disk: config.json and model.safetensors, as published, read strictly.

Which generation a folder holds is told from its config: Toto 1 calls its width `embed_dim`,
Toto 2 `d_model`. Toto 2's multipliers are folded into the weights that are read, and taken out
again where weights are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrain_assets.errors import CheckpointError
from retrain_assets.models import configs
from retrain_assets.models.checkpoint_folders import (
    CONFIG,
    check_weights,
    existing,
    stored_weights,
    write_folder,
)
from retrain_assets.models.toto.folding import fold, unfold
from retrain_assets.models.toto.toto1 import Toto1Network, official_names
from retrain_assets.models.toto.toto1_config import Toto1Config
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.models.toto.toto2_config import Toto2Config

Network = Toto1Network | Toto2Network

FOLDED = "folded"
"""Form of Toto 2's weights here: its multipliers are part of them."""
_PREFIX = "model."  # of every weight in a published Toto 1 file


def read_config(path: Path) -> Toto1Config | Toto2Config:
    """A folder's config.json; raises CheckpointError naming the file, and the field at fault."""
    content = configs.read_config(path)
    names = content.keys() if isinstance(content, dict) else set()
    if "embed_dim" in names and "d_model" not in names:
        return Toto1Config.read(path)
    if "d_model" in names and "embed_dim" not in names:
        return Toto2Config.read(path)
    raise CheckpointError(
        f"{path} is of neither generation of Toto: expected a field 'embed_dim' (Toto 1) or "
        "'d_model' (Toto 2)"
    )


def load_network(folder: Path) -> Network:
    """Load a folder on the CPU, in evaluation mode, weights frozen, Toto 2's folded.

    Raises CheckpointError naming the file, field or weight at fault.
    """
    config = read_config(existing(folder, CONFIG))
    weights, source = stored_weights(folder)
    with torch.device("meta"):  # shapes without values: no time or random numbers spent
        network = Toto1Network(config) if isinstance(config, Toto1Config) else Toto2Network(config)
    first = isinstance(config, Toto1Config)
    weights = official_names(weights) if first else weights
    check_weights(network.state_dict(), weights, source)
    network.load_state_dict(weights if first else fold(weights), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def as_loaded(network: Network) -> dict[str, Tensor]:
    """The weights that come back once the network was saved: Toto 2's are rounded on the way."""
    weights = dict(network.state_dict())
    return weights if isinstance(network, Toto1Network) else fold(unfold(weights))


def save_checkpoint(folder: Path, network: Network, *, card: str | None = None) -> None:
    """Write config.json, model.safetensors and, if given, README.md; all of it or nothing."""
    weights: dict[str, Tensor] = dict(network.state_dict())
    config: dict[str, Any] = network.config.to_json()
    if isinstance(network, Toto1Network):
        weights = {_PREFIX + name: weight for name, weight in weights.items()}
    else:
        weights = unfold(weights)
    write_folder(folder, config, weights, card=card)
