"""Shapes, weights and windows that the Toto 2 tests share, and the published package if there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from retrain_assets.models.toto.folding import fold
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.models.toto.toto2_config import Toto2Config

# config.json of Datadog/Toto-2.0-4m.
PUBLISHED_4M: dict[str, Any] = {
    "attn_bias": True,
    "d_ff": 688,
    "d_model": 256,
    "dropout_p": 0.0,
    "heads_per_group": 1,
    "layer_group_size": 4,
    "mlp_bias": False,
    "norm_eps": 1e-4,
    "norm_include_weight": False,
    "num_groups": 4,
    "num_heads": 4,
    "num_layers": 4,
    "num_output_patches": 1,
    "num_variate_layers_per_group": 1,
    "patch_size": 32,
    "per_dim_scale": True,
    "pre_norm": True,
    "qk_dim": 64,
    "qk_norm": False,
    "qk_norm_include_weight": False,
    "residual_attn_ratio": 5.136215466577748,
    "residual_mult": 0.75,
    "use_xpos": True,
    "v_dim": 64,
    "variate_layer_first": False,
}
# As published but small: two time layers, then one across variates.
TINY = PUBLISHED_4M | {
    "d_model": 32,
    "d_ff": 44,
    "num_heads": 4,
    "qk_dim": 8,
    "v_dim": 12,
    "num_layers": 3,
    "layer_group_size": 3,
    "patch_size": 8,
}
SHAPES: dict[str, dict[str, Any]] = {
    "published": {},
    "qk_norm": {"qk_norm": True, "qk_norm_include_weight": True},
    "norm weights": {"norm_include_weight": True},
    "no xpos": {"use_xpos": False},
    "no per-dim scale": {"per_dim_scale": False},
    "grouped heads": {"num_groups": 2, "heads_per_group": 2},
    "mlp bias, no attention bias": {"mlp_bias": True, "attn_bias": False},
    "variates first, two groups": {
        "num_layers": 4,
        "layer_group_size": 2,
        "variate_layer_first": True,
    },
}


def toto2_package() -> ModuleType:
    """The published package; the test skips, and says so, where it is not installed."""
    return pytest.importorskip(  # type: ignore[no-any-return]
        "toto2",
        reason="the published package (toto-2) is not installed: no parity test",
    )


def config_of(fields: dict[str, Any]) -> Toto2Config:
    return Toto2Config.from_json(fields, Path("config.json"))


def published_weights(fields: dict[str, Any], *, seed: int = 0) -> dict[str, Tensor]:
    """Random weights in published form and of published scale, none of them at a neutral value.

    Biases, norms and per-dim scales of 0 or 1, and residual weights that follow from the config,
    would let a wrong use of them pass.
    """
    with torch.device("meta"):
        shapes = Toto2Network(config_of(fields)).state_dict()
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in shapes.items():
        drawn = torch.randn(like.shape, generator=generator)
        if name.endswith("tau"):
            drawn = 0.2 + drawn.abs()
        elif "norm" in name:
            drawn = 1 + 0.3 * drawn
        elif "param_projection.proj.linear2" in name or "skip_proj" in name:
            drawn = 3 * drawn  # quantiles some deviations apart
        weights[name] = drawn
    return weights


def network_of(fields: dict[str, Any], weights: dict[str, Tensor]) -> Toto2Network:
    """Our network with published weights folded in."""
    with torch.device("meta"):
        network = Toto2Network(config_of(fields))
    network.load_state_dict(fold(weights), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def published_model(package: ModuleType, fields: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    model = package.Toto2Model(package.Toto2ModelConfig(**fields)).eval()
    model.load_state_dict(weights, strict=True)
    return model


def tiny_network(seed: int = 0, **changes: Any) -> Toto2Network:
    fields = TINY | changes
    return network_of(fields, published_weights(fields, seed=seed))


def knots(
    network: Toto2Network, values: Tensor, observed: Tensor, known: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantiles (B, V, N, P, 9) of the patch after every position; loc and scale (B, V, N)."""
    states, loc, scale = network.hidden(values, observed, known, groups)
    return network.readout(states), loc, scale


def walks(*shape: int, seed: int = 0) -> Tensor:
    """Random walks along the last axis, around 20."""
    generator = torch.Generator().manual_seed(seed)
    walk = torch.randn(shape, generator=generator).cumsum(-1)
    return 20 + walk - walk.mean(-1, keepdim=True)


def window(case: str, length: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """values, observed and groups of two rows: of what kind says the name."""
    variates = 1 if case == "univariate" else 5
    values = walks(2, variates, length, seed=len(case))
    observed = torch.ones_like(values, dtype=torch.bool)
    groups = torch.zeros(2, variates, dtype=torch.long)
    if case == "groups":
        groups = torch.tensor([[0, 1, 0, 2, 1], [3, 3, 3, 3, 4]])
    if case in ("padded", "missing"):
        observed[0, :, :16] = False  # two patches of padding
        observed[1, 1:3, :21] = False  # some variates begin in the middle of a patch
    if case == "missing":
        observed[1, 0, 16:24] = False  # a whole patch in between
        observed &= torch.rand(values.shape, generator=torch.Generator().manual_seed(9)) > 0.2
        observed[0, 3, -5:] = False  # in the last patch, where it is overruled
    return values, observed, groups


WINDOWS = ("univariate", "one group", "groups", "padded", "missing")
