"""Shapes, networks and series that the tests of Toto 1 share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retrain_assets.models.toto.toto1 import Toto1Network
from retrain_assets.models.toto.toto1_config import DISTRIBUTION, SCALER, Toto1Config


def toto1_fields(
    patch: int, width: int, layers: int, heads: int, every: int, components: int
) -> dict[str, Any]:
    return {
        "patch_size": patch,
        "stride": patch,
        "embed_dim": width,
        "num_layers": layers,
        "num_heads": heads,
        "mlp_hidden_dim": 4 * width,
        "dropout": 0.1,
        "spacewise_every_n_layers": every,
        "scaler_cls": SCALER,
        "output_distribution_classes": [DISTRIBUTION],
        "output_distribution_kwargs": {"k_components": components},
        "spacewise_first": False,
        "use_memory_efficient_attention": False,
        "stabilize_with_global": True,
        "scale_factor_exponent": 10,
    }


PUBLISHED = toto1_fields(64, 768, 12, 12, 12, 24)
TINY = toto1_fields(8, 32, 4, 2, 4, 4)
SHAPES = {
    "tiny": TINY,
    "space first": toto1_fields(8, 32, 4, 2, 2, 4) | {"spacewise_first": True},
    "time only": toto1_fields(8, 32, 2, 2, -1, 1),
    "moderate": toto1_fields(16, 128, 3, 4, 3, 12),
}


def build(fields: dict[str, Any] = TINY, *, seed: int = 0) -> Toto1Network:
    torch.manual_seed(seed)
    network = Toto1Network(Toto1Config.from_json(fields, "fields"))
    sharpen(network)
    return network.eval()


@torch.no_grad()
def sharpen(module: nn.Module) -> None:
    """Attention as uneven as a trained network's, and norms that are not one."""
    for name, weight in module.named_parameters():
        if name.endswith("wQKV.weight"):
            weight.mul_(3.0)
        elif name.endswith(("norm1.scale", "norm2.scale")):
            weight.uniform_(0.5, 1.5)


def walks(batch: int, variates: int, steps: int, *, seed: int = 0) -> Tensor:
    """Random walks around 10, (B, V, T)."""
    draw = torch.Generator().manual_seed(seed)
    return 10 + torch.randn(batch, variates, steps, generator=draw).cumsum(-1)
