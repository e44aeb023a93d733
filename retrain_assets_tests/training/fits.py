"""A small module and a task for it: what the loop of training is tested on."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from retrain_assets.training.trainer import FitConfig, FitResult


class LinearTask:
    """y = x @ w, 40 training and 16 validation rows; notes how many rows it is asked for."""

    train_windows = 40

    def __init__(self, most_rows: int = 10**9, poison_at: Collection[int] = ()) -> None:
        draw = torch.Generator().manual_seed(3)
        self.w = torch.randn(5, 1, generator=draw)
        self.x = torch.randn(56, 5, generator=draw)
        self.y = self.x @ self.w + 0.1 * torch.randn(56, 1, generator=draw)
        self.most_rows, self.poison_at, self.asked = most_rows, poison_at, []

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        if len(rows) > self.most_rows:
            raise torch.OutOfMemoryError("too many rows for this device")
        self.asked.append(len(rows))
        error = ((module(self.x[rows]) - self.y[rows]) ** 2).mean()
        if len(self.asked) in self.poison_at:
            error = error * math.nan
        return {"loss": error, "half": error / 2}

    def validation(self, module: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float(((module(self.x[40:]) - self.y[40:]) ** 2).mean())}


def small_module(dropout: float = 0.2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 1))


CONFIG = FitConfig(epochs=8, effective_batch=4, learning_rate=0.02, seed=11, patience=50)


def equal(a: FitResult, b: FitResult) -> bool:
    same_weights = all(torch.equal(a.weights[n], b.weights[n]) for n in a.weights)
    return same_weights and a.state == b.state
