"""The published Kronos shapes with random weights: speed does not depend on the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from retrain_assets.models import lora
from retrain_assets.models.forecaster import LoadedModel, ModelLimits
from retrain_assets.models.kronos import FAMILY
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.kronos.family import LORA_TARGETS
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.tokenizer import KronosTokenizer

_BITS = {"s1_bits": 10, "s2_bits": 10}

NETWORKS: dict[str, dict[str, Any]] = {
    "mini": {
        "n_layers": 4, "d_model": 256, "n_heads": 4, "ff_dim": 512, "learn_te": True,
        "ffn_dropout_p": 0.2, "resid_dropout_p": 0.2, "attn_dropout_p": 0.0,
        "token_dropout_p": 0.0, **_BITS,
    },
    "small": {
        "n_layers": 8, "d_model": 512, "n_heads": 8, "ff_dim": 1024, "learn_te": True,
        "ffn_dropout_p": 0.25, "resid_dropout_p": 0.25, "attn_dropout_p": 0.1,
        "token_dropout_p": 0.1, **_BITS,
    },
    "base": {
        "n_layers": 12, "d_model": 832, "n_heads": 16, "ff_dim": 2048, "learn_te": True,
        "ffn_dropout_p": 0.2, "resid_dropout_p": 0.2, "attn_dropout_p": 0.0,
        "token_dropout_p": 0.0, **_BITS,
    },
}  # fmt: skip
TOKENIZER: dict[str, Any] = {
    "d_in": 6, "d_model": 256, "n_heads": 4, "ff_dim": 512, "n_enc_layers": 4,
    "n_dec_layers": 4, "ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0,
    "beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05, "group_size": 5, **_BITS,
}  # fmt: skip


def random_model(size: str, device: torch.device) -> LoadedModel:
    """A published shape with random weights, frozen, in evaluation mode."""
    torch.manual_seed(0)
    network = KronosNetwork(NetworkConfig(**NETWORKS[size]))
    tokenizer = KronosTokenizer(TokenizerConfig(**TOKENIZER))
    return LoadedModel(
        family=FAMILY.name,
        base=size,
        module=network.to(device).eval().requires_grad_(False),
        companion=tokenizer.to(device).eval().requires_grad_(False),
        limits=ModelLimits(2048 if size == "mini" else 512),
        fingerprint="random",
        device=device,
    )


def adapter_settings(rank: int) -> lora.LoraSettings:
    """An adapter as the training policy makes it."""
    return lora.LoraSettings(rank, 2 * rank, 0.05, LORA_TARGETS)


def random_bars(n_bars: int) -> pd.DataFrame:
    """A seeded random walk in the shape of daily bars."""
    draw = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(draw.normal(0, 0.02, n_bars)))
    opening = close * np.exp(draw.normal(0, 0.005, n_bars))
    return pd.DataFrame(
        {
            "session": pd.bdate_range("2015-01-01", periods=n_bars),
            "open": opening,
            "high": np.maximum(opening, close) * 1.01,
            "low": np.minimum(opening, close) * 0.99,
            "close": close,
            "volume": draw.uniform(1e6, 5e6, n_bars),
        }
    )
