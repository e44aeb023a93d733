"""Tiny networks of both generations as loaded models, for tests of what is built on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import LoadedModel, ModelLimits
from retrain_assets.models.toto.checkpoint import FOLDED, Network, save_checkpoint
from retrain_assets.models.toto.forecaster import TotoForecaster
from retrain_assets_tests.models.toto import toto1_cases, toto2_cases

GENERATIONS = (1, 2)
PATCH = 8
"""Of both tiny networks."""


def tiny(generation: int, *, seed: int = 0) -> Network:
    """A network whose forecasts differ, are skewed and use the companions."""
    if generation == 2:
        return toto2_cases.tiny_network(seed)
    return toto1_cases.build(seed=seed).requires_grad_(False)


def model(generation: int, *, seed: int = 0, max_context: int = 512) -> LoadedModel:
    network = tiny(generation, seed=seed)
    return LoadedModel(
        family="toto",
        base="random",
        module=network,
        companion=None,
        limits=ModelLimits(max_context, PATCH),
        fingerprint=weights_digest(network.state_dict()),
        device=torch.device("cpu"),
        base_weights=FOLDED if generation == 2 else "published",
    )


def forecaster(generation: int, **options: Any) -> TotoForecaster:
    return TotoForecaster(model(generation), name="toto", **options)


def write_bases(checkpoints: Path) -> dict[int, str]:
    """Write both networks in the published format and list them; returns their names."""
    names = {generation: f"tiny-{generation}" for generation in GENERATIONS}
    for generation, name in names.items():
        save_checkpoint(checkpoints / name, tiny(generation))
    lines = "".join(f"  {n}: {{model: {n}, max_context: 512}}\n" for n in names.values())
    (checkpoints / "bases.yaml").write_text(f"toto:\n{lines}")
    return names
