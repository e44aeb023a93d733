"""One stock's bars as NLinear training batches, and the small base that is trained on several.

Axes: W windows, h horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrain_assets.errors import BadInput
from retrain_assets.models.checkpoint_folders import write_folder
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.models.inputs import require_finite
from retrain_assets.models.nlinear.bases import LOOKBACK, STEPS
from retrain_assets.models.nlinear.network import SHAPE, NLinear
from retrain_assets.training.losses import point_loss
from retrain_assets.training.pretraining import card, fit_facts, known_windows
from retrain_assets.training.trainer import FitConfig, Progress, fit
from retrain_assets.training.windows import cut_windows, kept_targets, normalise_windows

FIT = FitConfig(epochs=8, effective_batch=16, learning_rate=1e-3, seed=0, patience=3)
"""How the bundled base is trained."""


def closes(bars: pd.DataFrame) -> NDArray[np.float64]:
    """Closes as a series of one channel, (bar, 1); raises BadInput for one that is no number."""
    series = bars[["close"]].to_numpy(dtype=np.float64)
    require_finite(series, ("close",), bars["session"])
    return series


@dataclass(frozen=True)
class Windows:
    """In units of their contexts: closes (W, LOOKBACK), targets (W, h); kept (W, h), False for
    targets that were cut off."""

    closes: Tensor
    targets: Tensor
    kept: Tensor

    @classmethod
    def cut(cls, bars: pd.DataFrame, windows: WindowRange) -> Windows:
        """The windows of a range; raises BadInput for one that holds none."""
        raw = cut_windows(closes(bars), windows).astype(np.float64)
        series = normalise_windows(raw, context=windows.context).values[:, :, 0]
        known, targets = np.split(series, [windows.context], axis=1)
        return cls(
            torch.from_numpy(known[:, -LOOKBACK:]).float(),
            torch.from_numpy(targets).float(),
            torch.from_numpy(kept_targets(windows)),
        )

    @classmethod
    def joined(cls, parts: Sequence[Windows]) -> Windows:
        """Windows of several stocks as one."""
        names = ("closes", "targets", "kept")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def to(self, device: torch.device) -> Windows:
        """The same on a device."""
        return Windows(self.closes.to(device), self.targets.to(device), self.kept.to(device))


class NLinearTask:
    """Training and validation windows; a `TrainingTask`."""

    def __init__(self, *, train: Windows, validation: Windows, loss: str) -> None:
        self.train, self.held_out, self.name = train, validation, loss
        self.train_windows = len(train.closes)

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Mean loss over some training windows."""
        return {"loss": self._mean(module, self.train, torch.from_numpy(rows))}

    @torch.no_grad()
    def validation(self, module: nn.Module) -> dict[str, float]:
        """Mean loss over the validation windows."""
        rows = torch.arange(len(self.held_out.closes))
        return {"loss": float(self._mean(module, self.held_out, rows))}

    def _mean(self, module: nn.Module, windows: Windows, rows: Tensor) -> Tensor:
        mean, variance = module(windows.closes[rows])
        kept, horizon = windows.kept[rows], windows.kept.shape[1]
        target = windows.targets[rows][kept]
        return point_loss(self.name, mean[:, :horizon][kept], variance[:, :horizon][kept], target)


def pretrain(
    size: str,
    bars: Mapping[str, pd.DataFrame],
    *,
    until: pd.Timestamp,
    folder: Path,
    report: Callable[[str, Progress], None],
) -> dict[str, Any]:
    """Train a network on bars up to `until` and write it to `folder`; returns the card's facts."""
    if size != "nano":
        raise BadInput(f"no size {size!r} to pretrain: choose nano")
    ranges = known_windows(bars, until, context=LOOKBACK, horizon=STEPS, stride=1)
    cut = [(Windows.cut(own, fitted), Windows.cut(own, rest)) for own, fitted, rest in ranges]
    train, validation = (Windows.joined(side) for side in zip(*cut, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FIT.seed)
        network = NLinear()
    task = NLinearTask(train=train, validation=validation, loss="heteroscedastic")
    result = fit(network, task, FIT, report=lambda progress: report("network", progress))
    facts = {
        "symbols": sorted(bars),
        "until": str(until.date()),
        "training_windows": task.train_windows,
        "network": fit_facts(FIT, result),
        "fingerprint": weights_digest(network.state_dict()),
    }
    told = card(
        "nlinear-nano",
        title="NLinear",
        windows=[f"- Windows: {LOOKBACK} context and {STEPS} target bars, closes alone."],
        command="retrain pretrain nlinear",
        losses=["- Seed, epochs and losses (heteroscedastic, in deviations of the context):"],
        facts=facts,
    )
    write_folder(folder / "nlinear-nano", SHAPE, network.state_dict(), card=told)
    return facts
