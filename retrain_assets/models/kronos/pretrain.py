"""Pretrains a small Kronos base, tokenizer and network, on the bars at hand.

It exists so that the whole system runs offline: no base this small, trained on so few series, is
meant to be traded on. The published bases are loaded instead where they can be had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.models.kronos.checkpoint import fingerprint, save_checkpoint
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.preprocess import features, time_features
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.training.pretraining import VALIDATION_BARS, card, fit_facts, known_windows
from retrain_assets.training.trainer import FitConfig, Progress, fit
from retrain_assets.training.windows import cut_windows, normalise_windows

CONTEXT, HORIZON = 448, 64
"""Shape of the pretraining windows: what a 512-bar base sees when it is retrained."""
NORMALISED_ON = (448, 192)
"""First bars whose statistics normalise a window; fewer let prices wander further from zero."""
STRIDE = 16


@dataclass(frozen=True)
class Size:
    """Shapes and schedules of one base size."""

    network: NetworkConfig
    tokenizer: TokenizerConfig
    tokenizer_fit: FitConfig
    network_fit: FitConfig


NANO = Size(
    network=NetworkConfig(
        s1_bits=10,
        s2_bits=10,
        n_layers=3,
        d_model=128,
        n_heads=4,
        ff_dim=256,
        ffn_dropout_p=0.0,
        attn_dropout_p=0.0,
        resid_dropout_p=0.0,
        token_dropout_p=0.0,
        learn_te=True,
    ),
    tokenizer=TokenizerConfig(
        d_in=6,
        d_model=64,
        n_heads=4,
        ff_dim=128,
        n_enc_layers=3,
        n_dec_layers=3,
        ffn_dropout_p=0.0,
        attn_dropout_p=0.0,
        resid_dropout_p=0.0,
        s1_bits=10,
        s2_bits=10,
        beta=0.05,
        gamma0=1.0,
        gamma=1.1,
        zeta=0.05,
        group_size=5,
    ),
    tokenizer_fit=FitConfig(
        epochs=6, effective_batch=4, learning_rate=1e-3, seed=1, patience=6, weight_decay=0.05
    ),
    network_fit=FitConfig(
        epochs=5, effective_batch=8, learning_rate=1e-3, seed=2, patience=5, weight_decay=0.1
    ),
)
SIZES = {"nano": NANO}


@dataclass(frozen=True)
class PretrainingData:
    """Normalised windows of several series.

    values: (window, position, feature) fp32. stamps: (window, position, 5) int64.
    """

    values: Tensor
    stamps: Tensor


def pretraining_windows(
    bars: Mapping[str, pd.DataFrame], until: pd.Timestamp
) -> tuple[PretrainingData, PretrainingData]:
    """Training and validation windows of every symbol's bars; errors as `known_windows`."""
    train, validation = [], []
    ranges = known_windows(bars, until, context=CONTEXT, horizon=HORIZON, stride=STRIDE)
    for known, fitted, held_out in ranges:
        train.append(_windows(known, fitted))
        validation.append(_windows(known, held_out))
    return _joined(train), _joined(validation)


def _windows(bars: pd.DataFrame, windows: WindowRange) -> PretrainingData:
    cut = cut_windows(features(bars), windows).astype(np.float64)
    values = [normalise_windows(cut, context=first).values for first in NORMALISED_ON]
    stamps = cut_windows(time_features(pd.DatetimeIndex(bars["session"])), windows)
    return PretrainingData(
        torch.from_numpy(np.concatenate(values).astype(np.float32)),
        torch.from_numpy(np.concatenate([stamps] * len(values)).astype(np.int64)),
    )


def _joined(parts: list[PretrainingData]) -> PretrainingData:
    return PretrainingData(
        torch.cat([p.values for p in parts]), torch.cat([p.stamps for p in parts])
    )


class TokenizerTask:
    """Reconstruction by the coarse bits and by all bits, plus the quantiser's loss."""

    def __init__(self, train: PretrainingData, validation: PretrainingData) -> None:
        self.train, self.held_out = train.values, validation.values
        self.train_windows = len(self.train)

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Half of (coarse + full mean squared error + quantiser loss), as upstream weighs them."""
        return self._losses(module, self.train[rows])

    @torch.no_grad()
    def validation(self, module: nn.Module) -> dict[str, float]:
        """The same, over the validation windows."""
        return {name: float(v) for name, v in self._losses(module, self.held_out).items()}

    def _losses(self, module: nn.Module, values: Tensor) -> dict[str, Tensor]:
        coarse, full, bsq_loss = module(values)
        errors = {"coarse": F.mse_loss(coarse, values), "full": F.mse_loss(full, values)}
        return {"loss": (errors["coarse"] + errors["full"] + bsq_loss) / 2, **errors}


class NetworkTask:
    """Cross-entropy of both tokens at every position of windows from many series."""

    def __init__(
        self, tokenizer: KronosTokenizer, train: PretrainingData, validation: PretrainingData
    ) -> None:
        self.train, self.held_out = _tokens(tokenizer, train), _tokens(tokenizer, validation)
        self.train_windows = len(self.train[0])

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Mean cross-entropy over all positions, half for each token."""
        s1, s2, stamps = (part[rows] for part in self.train)
        return _token_losses(module, s1, s2, stamps, scored=s1.shape[1] - 1)

    @torch.no_grad()
    def validation(self, module: nn.Module) -> dict[str, float]:
        """The same over the target positions of the validation windows alone."""
        losses = _token_losses(module, *self.held_out, scored=HORIZON)
        return {name: float(v) for name, v in losses.items()}


def _tokens(tokenizer: KronosTokenizer, data: PretrainingData) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode():
        encoded = [tokenizer.encode(chunk) for chunk in torch.split(data.values, 64)]
    s1, s2 = (torch.cat(parts).clone() for parts in zip(*encoded, strict=True))
    return s1, s2, data.stamps


def _token_losses(
    module: nn.Module, s1: Tensor, s2: Tensor, stamps: Tensor, *, scored: int
) -> dict[str, Tensor]:
    logits = module(s1[:, :-1], s2[:, :-1], stamps[:, :-1], s1[:, 1:])
    entropies = [
        F.cross_entropy(given[:, -scored:].flatten(0, 1), wanted[:, -scored:].flatten())
        for given, wanted in zip(logits, (s1, s2), strict=True)
    ]
    return {
        "loss": (entropies[0] + entropies[1]) / 2,
        "cross_entropy_s1": entropies[0],
        "cross_entropy_s2": entropies[1],
    }


def pretrain(
    size: str,
    bars: Mapping[str, pd.DataFrame],
    *,
    until: pd.Timestamp,
    folder: Path,
    report: Callable[[str, Progress], None] = lambda part, progress: None,
) -> dict[str, Any]:
    """Train tokenizer and network of `size` and write them in the published format.

    bars: by symbol; nothing after `until` is used. folder: receives `kronos-<size>` and
    `kronos-tokenizer-<size>`, each with config.json, model.safetensors and a card. report:
    called with the part's name as it trains. Returns what the cards say, as JSON values.
    """
    if size not in SIZES:
        raise BadInput(f"no size {size!r} to pretrain: choose one of {', '.join(SIZES)}")
    spec = SIZES[size]
    train, validation = pretraining_windows(bars, until)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.tokenizer_fit.seed)
        tokenizer = KronosTokenizer(spec.tokenizer)
        network = KronosNetwork(spec.network)
    tokenizer_fit = fit(
        tokenizer,
        TokenizerTask(train, validation),
        spec.tokenizer_fit,
        report=lambda progress: report("tokenizer", progress),
    )
    tokenizer.eval()
    network_fit = fit(
        network,
        NetworkTask(tokenizer, train, validation),
        spec.network_fit,
        report=lambda progress: report("network", progress),
    )
    facts = {
        "symbols": sorted(bars),
        "until": str(until.date()),
        "training_windows": len(train.values),
        "validation_windows": len(validation.values),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "tokenizer": fit_facts(spec.tokenizer_fit, tokenizer_fit),
        "network": fit_facts(spec.network_fit, network_fit),
        "fingerprint": fingerprint(network=network, tokenizer=tokenizer),
    }
    parts: dict[str, KronosNetwork | KronosTokenizer]
    parts = {f"kronos-tokenizer-{size}": tokenizer, f"kronos-{size}": network}
    for name, module in parts.items():
        save_checkpoint(folder / name, module, card=_card(name, facts))
    return facts


def _card(name: str, facts: Mapping[str, Any]) -> str:
    contexts = " or ".join(map(str, NORMALISED_ON))
    return card(
        name,
        title="Kronos",
        windows=[
            f"- Windows: {CONTEXT} context and {HORIZON} target bars, normalised on their first",
            f"  {contexts} bars: {facts['training_windows']} for training,",
            f"  {facts['validation_windows']} for early stopping, with targets in the last",
            f"  {VALIDATION_BARS} bars before the cut-off.",
        ],
        command="retrain pretrain kronos --size nano",
        losses=[
            "- Seeds, epochs and losses (nats for the network, squared error in units of the",
            "  context's standard deviation for the tokenizer):",
        ],
        facts=facts,
    )
