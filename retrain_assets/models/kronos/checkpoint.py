"""Kronos checkpoints on disk: config.json and model.safetensors, as published, read strictly.

A weight that is missing, left over, or of another shape or type than config.json demands is an
error with its name. (The published loader passes over such weights and leaves them random.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from retrain_assets.errors import CheckpointError
from retrain_assets.models.checkpoint_folders import (
    CONFIG,
    check_weights,
    existing,
    local_folder,
    stored_weights,
    write_folder,
)
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.kronos.bases import Base
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.tokenizer import KronosTokenizer

_Module = TypeVar("_Module", KronosNetwork, KronosTokenizer)


def load_base(base: Base, *, checkpoints: Path) -> tuple[KronosNetwork, KronosTokenizer]:
    """Load a base's network and tokenizer on the CPU, in evaluation mode, weights frozen.

    Raises CheckpointError if a file cannot be had, does not fit its config, or if the two do
    not speak the same tokens.
    """
    model = local_folder(base.model, base.revision, checkpoints=checkpoints)
    companion = local_folder(base.tokenizer, base.tokenizer_revision, checkpoints=checkpoints)
    network, tokenizer = load_network(model), load_tokenizer(companion)
    for field in ("s1_bits", "s2_bits"):
        ours, theirs = getattr(network.config, field), getattr(tokenizer.config, field)
        if ours != theirs:
            raise CheckpointError(
                f"{model / CONFIG} has {field} {ours}, but {companion / CONFIG} has {theirs}: "
                "this tokenizer is not the one the network was trained with"
            )
    return network, tokenizer


def load_network(folder: Path) -> KronosNetwork:
    """Load a network folder; raises CheckpointError naming the file, field or weight at fault."""
    config = NetworkConfig.read(existing(folder, CONFIG))
    with torch.device("meta"):  # shapes without values: no time or random numbers spent
        network = KronosNetwork(config)
    return _filled(network, folder)


def load_tokenizer(folder: Path) -> KronosTokenizer:
    """Load a tokenizer folder; raises CheckpointError naming the file, field or weight at fault."""
    config = TokenizerConfig.read(existing(folder, CONFIG))
    with torch.device("meta"):
        tokenizer = KronosTokenizer(config)
    return _filled(tokenizer, folder)


def save_checkpoint(
    folder: Path, module: KronosNetwork | KronosTokenizer, *, card: str | None = None
) -> None:
    """Write config.json, model.safetensors and, if given, README.md; all of it or nothing."""
    write_folder(folder, module.config.to_json(), module.state_dict(), card=card)


def fingerprint(**modules: nn.Module) -> str:
    """SHA-256 (hex) over names, types, shapes and values of all weights of named modules.

    The same on every device, and independent of the order of the weights.
    """
    return weights_digest(
        {
            f"{part}.{name}": tensor
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
    )


def _filled(module: _Module, folder: Path) -> _Module:
    weights, source = stored_weights(folder)
    check_weights(module.state_dict(), weights, source)
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval().requires_grad_(False)
