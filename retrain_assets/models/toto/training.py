"""One stock's bars as Toto training batches: windows, variates that come and go, cut points.

Axes: W windows, V variates (the close first), T positions (context, then horizon), h horizon,
P steps of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.models.memory import with_less
from retrain_assets.models.toto.checkpoint import Network
from retrain_assets.models.toto.forecaster import network_of
from retrain_assets.models.toto.objective import Batch, losses, padded
from retrain_assets.models.toto.series import in_units, variates
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.training.losses import LOSSES
from retrain_assets.training.windows import cut_windows, kept_targets

ALONE = 0.5
"""Share of training windows in which the close stands alone, as it does without past values."""
SHORTEST_CUT = 0.5
"""Least share of the context's patches that is shown before a horizon is masked."""
CHUNK = 16
"""Windows validated at once, where memory takes them."""


@dataclass(frozen=True)
class TotoWindows:
    """Windows of one or several stocks, all of one shape, in units of their contexts.

    values: (W, V, T) fp32. kept: (W, h), False for targets that were cut off. context: T - h.
    """

    values: Tensor
    kept: Tensor
    context: int

    @classmethod
    def cut(cls, bars: pd.DataFrame, windows: WindowRange) -> TotoWindows:
        """The windows of a range of one stock's bars; raises BadInput for a bar that is no
        number, and for a range that holds no window."""
        raw = cut_windows(variates(bars), windows).astype(np.float64)
        series = in_units(raw, context=windows.context)
        kept = torch.from_numpy(kept_targets(windows))
        return cls(torch.from_numpy(series.values), kept, windows.context)

    @classmethod
    def joined(cls, parts: Sequence[TotoWindows]) -> TotoWindows:
        """Windows of several stocks as one; they must have one shape."""
        return cls(
            torch.cat([part.values for part in parts]),
            torch.cat([part.kept for part in parts]),
            parts[0].context,
        )

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, rows: NDArray[np.int64] | slice, device: torch.device) -> TotoWindows:
        """Some of the windows, on a device."""
        return TotoWindows(self.values[rows].to(device), self.kept[rows].to(device), self.context)


class TotoTrainingTask:
    """Training and validation windows; a `TrainingTask`."""

    def __init__(
        self, *, train: TotoWindows, validation: TotoWindows, loss: str, device: torch.device
    ) -> None:
        if loss not in LOSSES:
            raise BadInput(f"no loss {loss!r}: choose one of {', '.join(LOSSES)}")
        self.train, self.held_out = train, validation
        self.point, self.device = loss, device
        self.train_windows = len(train)
        self._at_once = CHUNK

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Mean loss over some training windows: the close alone in about half of them.

        What stands alone, and where a horizon is cut, is drawn on the CPU for each window.
        """
        network, windows = network_of(module), self.train.rows(rows, self.device)
        patch = network.config.patch_size
        most = windows.context // patch
        # Toto 1 has no mask: all of a window is scored.
        masks = isinstance(network, Toto2Network)
        least = max(1, round(most * SHORTEST_CUT)) if masks else most
        cut = torch.randint(least, most + 1, (len(windows),)).to(self.device)
        alone = torch.rand(len(windows)).to(self.device) < ALONE
        batch = Batch(padded(windows.values, patch), _scored(windows, patch, cut), cut)
        found = [
            losses(network, _chosen(batch, which, variates=count), loss=self.point)
            for which, count in ((alone, 1), (~alone, None))
            if which.any()
        ]
        return _mean(found)

    @torch.no_grad()
    def validation(self, module: nn.Module) -> dict[str, float]:
        """Mean loss over the targets of the validation windows, with and without companions.

        Causal, and without noise: every window is cut where its context ends. Fewer windows at
        once where memory is short.
        """
        found, self._at_once = with_less(lambda n: self._validation(module, n), self._at_once)
        return found

    def _validation(self, module: nn.Module, at_once: int) -> dict[str, float]:
        network = network_of(module)
        found = [
            losses(network, batch, loss=self.point)
            for start in range(0, len(self.held_out), at_once)
            for batch in self._held_out(network, slice(start, start + at_once))
        ]
        return {name: float(value) for name, value in _mean(found).items()}

    def _held_out(self, network: Network, rows: slice) -> list[Batch]:
        windows = self.held_out.rows(rows, self.device)
        patch = network.config.patch_size
        most = windows.context // patch
        cut = torch.full((len(windows),), most, device=self.device)
        scored = _scored(windows, patch, cut)
        scored[:, : windows.context] = False
        values = padded(windows.values, patch)
        return [Batch(values[:, :1], scored, cut), Batch(values, scored, cut)]


def _scored(windows: TotoWindows, patch: int, cut: Tensor) -> Tensor:
    """Closes that count (W, T): up to the horizon's length after each window's cut, if kept."""
    horizon = windows.kept.shape[1]
    there = F.pad(windows.kept, (windows.context, 0), value=True)
    there = F.pad(there, (0, -there.shape[1] % patch), value=False)
    position = torch.arange(there.shape[1], device=there.device)
    return there & (position < cut[:, None] * patch + horizon)


def _chosen(batch: Batch, which: Tensor, *, variates: int | None) -> Batch:
    """Some windows, of each the first so many variates."""
    return Batch(batch.values[which, :variates], batch.scored[which], batch.cut[which])


def _mean(found: Sequence[tuple[dict[str, Tensor], Tensor]]) -> dict[str, Tensor]:
    """Sums and counts -> means over everything that was counted."""
    count = torch.stack([number for _, number in found]).sum()
    return {
        name: torch.stack([sums[name] for sums, _ in found]).sum() / count for name in found[0][0]
    }
