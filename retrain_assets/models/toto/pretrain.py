"""Training a small Toto from nothing on bars, so that the system runs without the hub.

The result has the official format and a card. It is no substitute for the published models:
it has seen a handful of series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from retrain_assets.errors import BadInput
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.toto.checkpoint import Network, as_loaded, save_checkpoint
from retrain_assets.models.toto.objective import LIKELIHOOD
from retrain_assets.models.toto.toto1 import Toto1Network
from retrain_assets.models.toto.toto1_config import DISTRIBUTION, SCALER, Toto1Config
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.models.toto.toto2_config import Toto2Config
from retrain_assets.models.toto.training import TotoTrainingTask, TotoWindows
from retrain_assets.training.pretraining import VALIDATION_BARS, card, fit_facts, known_windows
from retrain_assets.training.trainer import FitConfig, Progress, fit

CONTEXT, HORIZON = 1024, 64
"""Shape of the pretraining windows: the longest that the training policy asks for."""
STRIDE = 5
"""Not a divisor of the patch, so that patches begin at every bar."""


@dataclass(frozen=True)
class Size:
    """Shape and schedule of one base. folder: its name among the checkpoints."""

    folder: str
    config: Toto1Config | Toto2Config
    fit: FitConfig


SIZES = {
    "nano": Size(
        folder="toto-nano",
        config=Toto2Config.from_json(
            {
                "patch_size": 32,
                "d_model": 64,
                "d_ff": 176,
                "num_heads": 4,
                "num_groups": 4,
                "num_layers": 4,
                "layer_group_size": 4,
                "num_variate_layers_per_group": 1,
                "variate_layer_first": False,
                "qk_dim": 16,
                "v_dim": 16,
                "attn_bias": True,
                "mlp_bias": False,
                "qk_norm": False,
                "per_dim_scale": True,
                "use_xpos": True,
                "norm_eps": 1e-4,
                "residual_mult": 0.75,
                # sqrt(S / log S) of S = 32 patches, upstream's rule at this context.
                "residual_attn_ratio": 3.0387,
            },
            Path("nano"),
        ),
        fit=FitConfig(
            epochs=24, effective_batch=8, learning_rate=1e-3, seed=3, patience=8, weight_decay=0.05
        ),
    ),
    "nano-1": Size(
        folder="toto-1-nano",
        config=Toto1Config(
            patch_size=64,
            stride=64,
            embed_dim=64,
            num_layers=4,
            num_heads=4,
            mlp_hidden_dim=128,
            dropout=0.0,
            spacewise_every_n_layers=4,
            spacewise_first=False,
            scaler_cls=SCALER,
            output_distribution_classes=[DISTRIBUTION],
            output_distribution_kwargs={"k_components": 4},
        ),
        fit=FitConfig(
            epochs=24, effective_batch=8, learning_rate=1e-3, seed=4, patience=8, weight_decay=0.05
        ),
    ),
}


def pretraining_windows(
    bars: Mapping[str, pd.DataFrame], until: pd.Timestamp
) -> tuple[TotoWindows, TotoWindows]:
    """Training and validation windows of every symbol's bars; errors as `known_windows`."""
    train, validation = [], []
    ranges = known_windows(bars, until, context=CONTEXT, horizon=HORIZON, stride=STRIDE)
    for known, fitted, held_out in ranges:
        train.append(TotoWindows.cut(known, fitted))
        validation.append(TotoWindows.cut(known, held_out))
    return TotoWindows.joined(train), TotoWindows.joined(validation)


def pretrain(
    size: str,
    bars: Mapping[str, pd.DataFrame],
    *,
    until: pd.Timestamp,
    folder: Path,
    report: Callable[[str, Progress], None] = lambda part, progress: None,
) -> dict[str, Any]:
    """Train a network of `size` and write it in the published format.

    bars: by symbol; nothing after `until` is used. folder: receives one folder with config.json,
    model.safetensors and a card. Returns what the card says, as JSON values.
    """
    if size not in SIZES:
        raise BadInput(f"no size {size!r} to pretrain: choose one of {', '.join(SIZES)}")
    spec = SIZES[size]
    train, validation = pretraining_windows(bars, until)
    task = TotoTrainingTask(
        train=train, validation=validation, loss=LIKELIHOOD, device=torch.device("cpu")
    )
    network = _fresh(spec)
    result = fit(network, task, spec.fit, report=lambda progress: report("network", progress))
    facts = {
        "symbols": sorted(bars),
        "until": str(until.date()),
        "training_windows": len(train),
        "validation_windows": len(validation),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "network": fit_facts(spec.fit, result),
        "fingerprint": weights_digest(as_loaded(network)),
    }
    save_checkpoint(folder / spec.folder, network, card=_card(spec.folder, size, facts))
    return facts


def _fresh(spec: Size) -> Network:
    """A network with weights that depend on the size's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.fit.seed)
        if isinstance(spec.config, Toto1Config):
            return Toto1Network(spec.config)
        return Toto2Network(spec.config)


def _card(name: str, size: str, facts: Mapping[str, Any]) -> str:
    return card(
        name,
        title="Toto",
        windows=[
            f"- Windows: {CONTEXT} context and {HORIZON} target bars:",
            f"  {facts['training_windows']} for training, {facts['validation_windows']} for early",
            f"  stopping, with targets in the last {VALIDATION_BARS} bars before the cut-off. The",
            "  close is forecast, alone and beside open, high, low and volume.",
        ],
        command=f"retrain pretrain toto --size {size}",
        losses=["- Seeds, epochs and losses (of the close, in units of its running deviation):"],
        facts=facts,
    )
