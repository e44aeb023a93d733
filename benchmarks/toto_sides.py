"""Toto's published shapes with random weights, in the official packages and here.

Both sides hold the same numbers. Freshly drawn heads would make all 24 components of Toto 1 alike
and put Toto 2's quantiles on top of each other, where a forecast's error says nothing; they are
scaled until components stand apart.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.shapes import random_bars
from retrain_assets.models.forecaster import LoadedModel, ModelLimits, Window
from retrain_assets.models.toto.checkpoint import FOLDED, Network
from retrain_assets.models.toto.folding import READOUTS, fold
from retrain_assets.models.toto.series import Series, in_units, variates
from retrain_assets.models.toto.toto1 import Toto1Network, official_names
from retrain_assets.models.toto.toto1_config import DISTRIBUTION, SCALER, Toto1Config
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.models.toto.toto2_config import Toto2Config

HORIZON = 64
HEAD_SPREADS = {"loc_proj": 3.0, "df": 1.0, "scale_proj": 1.0, "mixture_weights": 1.0}
"""Deviation of what Toto 1's heads give out across steps and components."""
READOUT_SPREAD = 4.0
"""What Toto 2's last layers are multiplied by: quantiles that spread as far as the series does."""


def _toto1_fields(width: int, layers: int, heads: int, every: int) -> dict[str, Any]:
    return {
        "patch_size": 64,
        "stride": 64,
        "embed_dim": width,
        "num_layers": layers,
        "num_heads": heads,
        "mlp_hidden_dim": 4 * width,
        "dropout": 0.1,
        "spacewise_every_n_layers": every,
        "scaler_cls": SCALER,
        "output_distribution_classes": [DISTRIBUTION],
        "output_distribution_kwargs": {"k_components": 24},
        "spacewise_first": False,
        "use_memory_efficient_attention": False,
        "stabilize_with_global": True,
        "scale_factor_exponent": 10,
    }


TOTO1 = {"151M": _toto1_fields(768, 12, 12, 12), "small": _toto1_fields(192, 6, 6, 6)}
TOTO2_4M: dict[str, Any] = {
    "attn_bias": True, "d_ff": 688, "d_model": 256, "dropout_p": 0.0, "heads_per_group": 1,
    "layer_group_size": 4, "mlp_bias": False, "norm_eps": 1e-4, "norm_include_weight": False,
    "num_groups": 4, "num_heads": 4, "num_layers": 4, "num_output_patches": 1,
    "num_variate_layers_per_group": 1, "patch_size": 32, "per_dim_scale": True, "pre_norm": True,
    "qk_dim": 64, "qk_norm": False, "qk_norm_include_weight": False,
    "residual_attn_ratio": 5.136215466577748, "residual_mult": 0.75, "use_xpos": True,
    "v_dim": 64, "variate_layer_first": False,
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One set of weights on both sides. official: the package's module, its own names in it."""

    official: Any
    ours: LoadedModel


def toto1_pair(size: str, length: int, device: torch.device) -> Pair:
    """A shape of Toto 1, its heads scaled for windows of a length; needs toto-ts."""
    with warnings.catch_warnings(action="ignore"):  # on what is not installed
        from toto.model.toto import Toto

    torch.manual_seed(0)
    theirs = Toto(**TOTO1[size]).to(device).eval().requires_grad_(False)
    network = toto1_twin(theirs.model, size)
    _spread(network, length, device)  # the tensors are shared, so this reaches both
    return Pair(theirs.model, _loaded(network, device, base_weights="published"))


def toto1_twin(official: Any, size: str) -> Toto1Network:
    """Our network on the very tensors of an official one."""
    with torch.device("meta"):
        network = Toto1Network(Toto1Config.from_json(TOTO1[size], size))
    network.load_state_dict(official_names(official.state_dict()), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def toto2_pair(device: torch.device) -> Pair:
    """The 4m shape of Toto 2; needs toto-2."""
    with warnings.catch_warnings(action="ignore"):  # on what is not installed
        from toto2 import Toto2Model, Toto2ModelConfig

    torch.manual_seed(0)
    theirs = Toto2Model(Toto2ModelConfig(**TOTO2_4M)).to(device).eval().requires_grad_(False)
    for name in READOUTS:
        theirs.get_parameter(f"{name}.weight").mul_(READOUT_SPREAD)
    network = toto2_twin(theirs)
    return Pair(theirs, _loaded(network, device, base_weights=FOLDED))


def toto2_twin(official: Any) -> Toto2Network:
    """Our network with an official one's weights, folded."""
    with torch.device("meta"):
        network = Toto2Network(Toto2Config.from_json(TOTO2_4M, Path("4m")))
    network.load_state_dict(fold(official.state_dict()), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def random_window(length: int) -> Window:
    """The last `length` bars of a random walk and the sessions after them."""
    bars = random_bars(length + HORIZON)
    return Window(bars[:length], bars["session"].iloc[length:].dt.normalize().array)


def series_of(window: Window) -> Series:
    """All five series of a window as our forecaster hands them to a network."""
    return in_units(variates(window.bars)[None], context=len(window.bars))


def official_samples(official: Any, values: Tensor, *, samples: int, at_once: int) -> Tensor:
    """Samples of the close from Toto 1's own forecaster, (HORIZON, sample)."""
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster

    ids = torch.zeros(values.shape[:2], dtype=torch.int64, device=values.device)
    inputs = MaskedTimeseries(
        series=values,
        padding_mask=torch.ones_like(values, dtype=torch.bool),
        id_mask=ids[..., None].expand_as(values),
        timestamp_seconds=torch.zeros_like(values, dtype=torch.int64),
        time_interval_seconds=torch.ones_like(ids),
    )
    forecast = TotoForecaster(official).forecast(
        inputs, HORIZON, num_samples=samples, samples_per_batch=at_once, use_kv_cache=True
    )
    found: Tensor = forecast.samples[0, 0]
    return found


@torch.no_grad()
def official_mixture(official: Any, values: Tensor) -> list[NDArray[np.float64]]:
    """df, location, scale, weight (HORIZON, K) of the close, from Toto 1's own module."""
    ids = torch.zeros(values.shape, dtype=torch.int64, device=values.device)
    mixture, loc, scale = official(values, torch.ones_like(values, dtype=torch.bool), ids)
    parts = mixture.component_distribution
    fields = (parts.df, parts.loc, parts.scale, mixture.mixture_distribution.probs)
    df, at, width, weight = (field[0, 0, -HORIZON:].double().cpu().numpy() for field in fields)
    shift, factor = (x[0, 0, -1].double().cpu().numpy() for x in (loc, scale))
    return [df, shift + factor * at, factor * width, weight]


@torch.no_grad()
def official_quantiles(official: Any, values: Tensor) -> NDArray[np.float64]:
    """Toto 2's own forecast of the close, (HORIZON, 9). Without a mask, which is its fastest."""
    inputs = {
        "target": values,
        "target_mask": torch.ones_like(values, dtype=torch.bool),
        "series_ids": torch.zeros(values.shape[:2], dtype=torch.int64, device=values.device),
    }
    found = official.forecast(inputs, HORIZON, has_missing_values=False)  # (9, B, V, HORIZON)
    quantiles: NDArray[np.float64] = found[:, 0, 0].T.double().cpu().numpy()
    return quantiles


@torch.no_grad()
def _spread(network: Toto1Network, length: int, device: torch.device) -> None:
    """Scale the heads so that their outputs have the deviations of HEAD_SPREADS."""
    values = torch.from_numpy(series_of(random_window(length)).values[:, :1]).to(device)
    scaled = network.scaled(values, torch.ones_like(values, dtype=torch.bool))
    groups = torch.zeros(values.shape[:2], dtype=torch.int64, device=device)
    hidden = network.hidden(scaled.values, groups)[:, :, -1:]
    steps = torch.unflatten(network.unembed(hidden), -1, (HORIZON, -1))
    for name, wanted in HEAD_SPREADS.items():
        head = network.output_distribution.get_submodule(name)
        factor = wanted / head(steps).std()
        for parameter in head.parameters():
            parameter.mul_(factor)


def _loaded(network: Network, device: torch.device, *, base_weights: str) -> LoadedModel:
    return LoadedModel(
        family="toto",
        base="random",
        module=network.to(device),
        companion=None,
        limits=ModelLimits(4096, network.config.patch_size),
        fingerprint="random",
        device=device,
        base_weights=base_weights,
    )
