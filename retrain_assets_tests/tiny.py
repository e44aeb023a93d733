"""Bases of two or three layers with random weights, and bars to train them on: small and fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from retrain_assets.models.forecaster import Window
from retrain_assets.models.kronos.checkpoint import save_checkpoint
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.tokenizer import KronosTokenizer

_NONE = {"ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0}
_BITS = {"s1_bits": 4, "s2_bits": 4}
NETWORK = NetworkConfig(
    n_layers=2, d_model=16, n_heads=2, ff_dim=32, token_dropout_p=0.1, learn_te=True,
    **_NONE, **_BITS,
)  # fmt: skip
TOKENIZER = TokenizerConfig(
    d_in=6, d_model=16, n_heads=2, ff_dim=32, n_enc_layers=2, n_dec_layers=2,
    beta=0.05, gamma0=1.0, gamma=1.1, zeta=0.05, group_size=4, **_NONE, **_BITS,
)  # fmt: skip


def random_modules(seed: int = 0) -> tuple[KronosNetwork, KronosTokenizer]:
    """Network and tokenizer whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return KronosNetwork(NETWORK), KronosTokenizer(TOKENIZER).eval().requires_grad_(False)


def write_base(checkpoints: Path, *, name: str = "tiny", seed: int = 0) -> str:
    """Write a base in the published format and list it; returns its name."""
    network, tokenizer = random_modules(seed)
    save_checkpoint(checkpoints / f"kronos-{name}", network)
    save_checkpoint(checkpoints / f"kronos-tokenizer-{name}", tokenizer)
    fields = f"{{model: kronos-{name}, tokenizer: kronos-tokenizer-{name}, max_context: 512}}"
    listed = checkpoints / "bases.yaml"
    before = listed.read_text() if listed.exists() else "kronos:\n"
    listed.write_text(f"{before}  {name}: {fields}\n")
    return name


def write_toto_base(checkpoints: Path, *, name: str = "tiny") -> str:
    """Write a Toto base of the second generation and list it after what is listed already."""
    from retrain_assets.models.toto.checkpoint import save_checkpoint as save
    from retrain_assets_tests.models.toto.toto2_cases import tiny_network

    save(checkpoints / f"toto-{name}", tiny_network())
    with (checkpoints / "bases.yaml").open("a") as listed:
        listed.write(f"toto:\n  {name}: {{model: toto-{name}, max_context: 512}}\n")
    return name


def random_walk(n_bars: int, *, seed: int = 4) -> pd.DataFrame:
    """Bars of a seeded random walk on weekdays."""
    draw = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(draw.normal(0, 0.02, n_bars)))
    opening = close * np.exp(draw.normal(0, 0.005, n_bars))
    return pd.DataFrame(
        {
            "session": pd.bdate_range("2019-01-02", periods=n_bars),
            "open": opening,
            "high": np.maximum(opening, close) * 1.01,
            "low": np.minimum(opening, close) * 0.99,
            "close": close,
            "volume": draw.uniform(1e6, 2e6, n_bars),
        }
    )


def windows_of(bars: pd.DataFrame, *, context: int, steps: int, count: int) -> list[Window]:
    """`count` windows whose origins are one bar apart."""
    windows = []
    for first in range(count):
        end = first + context
        windows.append(
            Window(
                bars=bars.iloc[first:end].reset_index(drop=True),
                future_sessions=pd.DatetimeIndex(bars["session"].iloc[end : end + steps]),
            )
        )
    return windows
