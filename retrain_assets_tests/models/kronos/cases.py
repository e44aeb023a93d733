"""Shapes, modules and windows that the Kronos tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from retrain_assets.models.forecaster import LoadedModel, ModelLimits
from retrain_assets.models.kronos.checkpoint import fingerprint
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.kronos.network import STAMP_SIZES, KronosNetwork
from retrain_assets.models.kronos.sampler import ContextBatch
from retrain_assets.models.kronos.tokenizer import KronosTokenizer


def network_fields(
    n_layers: int, d_model: int, n_heads: int, ff_dim: int, dropout: float, attention: float
) -> dict[str, Any]:
    return {
        "s1_bits": 10,
        "s2_bits": 10,
        "n_layers": n_layers,
        "d_model": d_model,
        "n_heads": n_heads,
        "ff_dim": ff_dim,
        "ffn_dropout_p": dropout,
        "attn_dropout_p": attention,
        "resid_dropout_p": dropout,
        "token_dropout_p": attention,
        "learn_te": True,
    }


def tokenizer_fields(group_size: int) -> dict[str, Any]:
    return {
        "d_in": 6,
        "d_model": 256,
        "n_heads": 4,
        "ff_dim": 512,
        "n_enc_layers": 4,
        "n_dec_layers": 4,
        "ffn_dropout_p": 0.0,
        "attn_dropout_p": 0.0,
        "resid_dropout_p": 0.0,
        "s1_bits": 10,
        "s2_bits": 10,
        "beta": 0.05,
        "gamma0": 1.0,
        "gamma": 1.1,
        "zeta": 0.05,
        "group_size": group_size,
    }


NETWORKS = {
    "mini": network_fields(4, 256, 4, 512, 0.2, 0.0),
    "small": network_fields(8, 512, 8, 1024, 0.25, 0.1),
    "base": network_fields(12, 832, 16, 2048, 0.2, 0.0),
}
TOKENIZERS = {"base": tokenizer_fields(4), "2k": tokenizer_fields(5)}

# Two layers and two heads against the dependency-aware layer's four, unequal vocabularies.
TINY_NETWORK = network_fields(2, 16, 2, 24, 0.1, 0.1) | {"s1_bits": 5, "s2_bits": 4}
TINY_TOKENIZER = tokenizer_fields(3) | {
    "d_model": 16,
    "n_heads": 2,
    "ff_dim": 24,
    "n_enc_layers": 3,
    "n_dec_layers": 3,
    "s1_bits": 5,
    "s2_bits": 4,
}


def build_network(fields: dict[str, Any], *, seed: int = 0) -> KronosNetwork:
    torch.manual_seed(seed)
    return KronosNetwork(NetworkConfig(**fields)).eval()


def build_tokenizer(fields: dict[str, Any], *, seed: int = 0) -> KronosTokenizer:
    torch.manual_seed(seed)
    return KronosTokenizer(TokenizerConfig(**fields)).eval()


def build_model(
    network: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    *,
    max_context: int = 512,
) -> LoadedModel:
    """A random model, tiny unless told otherwise, with logits as peaked as a trained one's."""
    module = build_network(TINY_NETWORK if network is None else network)
    companion = build_tokenizer(TINY_TOKENIZER if tokenizer is None else tokenizer)
    with torch.no_grad():
        for head in (module.head.proj_s1, module.head.proj_s2):
            head.weight.mul_(3.0)
    return LoadedModel(
        family="kronos",
        base="random",
        module=module.requires_grad_(False),
        companion=companion.requires_grad_(False),
        limits=ModelLimits(max_context=max_context),
        fingerprint=fingerprint(network=module, tokenizer=companion),
        device=torch.device("cpu"),
    )


def random_inputs(
    fields: dict[str, Any], *, batch: int, length: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random tokens s1, s2 (B, T) and stamps (B, T, 5)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, length)
    s1, s2 = (
        torch.randint(0, 2 ** fields[bits], shape, generator=generator)
        for bits in ("s1_bits", "s2_bits")
    )
    stamps = [torch.randint(0, n, shape, generator=generator) for n in STAMP_SIZES.values()]
    return s1, s2, torch.stack(stamps, dim=-1)


def random_walk_values(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Normalised random walks of shape (window, bar, feature)."""
    walk = np.random.default_rng(seed).normal(size=shape).cumsum(axis=1)
    walk -= walk.mean(axis=1, keepdims=True)
    return (walk / walk.std(axis=1, keepdims=True)).astype(np.float32)


def random_batch(*, windows: int, context: int, steps: int, seed: int = 0) -> ContextBatch:
    generator = np.random.default_rng(seed)
    shape = (windows, context + steps)
    return ContextBatch(
        values=random_walk_values(windows, context, 6, seed=seed),
        stamps=np.stack([generator.integers(0, n, shape) for n in STAMP_SIZES.values()], axis=-1),
        origins=np.arange(windows) + 1000,
    )


def random_bars(count: int, *, seed: int = 0) -> pd.DataFrame:
    """A bars frame of business days."""
    generator = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.02, count)))
    open_ = close * np.exp(generator.normal(0, 0.005, count))
    return pd.DataFrame(
        {
            "session": pd.bdate_range("2020-01-01", periods=count),
            "open": open_,
            "high": np.maximum(open_, close) * 1.01,
            "low": np.minimum(open_, close) * 0.99,
            "close": close,
            "volume": generator.uniform(1e4, 3e4, count),
        }
    )


def upstream() -> Any:
    """Upstream's modules; the test skips, and says so, where they are not installed."""
    return pytest.importorskip(
        "kronos_finance._vendor.kronos_model.kronos",
        reason="upstream's code (kronos-finance, in locks/) is not installed: no parity test",
    )
