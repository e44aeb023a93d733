"""Naive persistence as a forecaster: the last close carried forward, which all must beat.

Its intervals are those of a driftless random walk of log closes whose step has the root mean
square of the context's returns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    Settings,
    SettingTraits,
    Window,
)


class NaiveForecaster:
    """Forecasts that nothing changes; has no settings and draws nothing."""

    name = "naive"

    def traits(self, settings: Settings) -> SettingTraits:
        """Naive has no settings, so there is one forecast. Raises BadInput for any setting."""
        if settings:
            raise BadInput(f"naive has no settings, but was given {', '.join(sorted(settings))}")
        return SettingTraits(same=(), shared=(), cost=1)

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """The last close at every step; see `Forecaster.forecast`.

        Mean and median are both the last close; a quantile at `level` is the last close times
        exp(z(level) x s x sqrt(step)). Raises BadInput for any setting.
        """
        start = time.perf_counter()
        for setting in settings:
            self.traits(setting)
        last = np.array([window.origin_close for window in windows])
        steps = np.arange(1, len(windows[0].future_sessions) + 1)
        spread = np.array([_step_size(window) for window in windows])
        scores = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
        # (window, level, step)
        moves = spread[:, None, None] * scores[:, None] * np.sqrt(steps)
        point = np.broadcast_to(last[:, None], (len(windows), len(steps)))
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=np.stack([point] * len(settings)),
            median=np.stack([point] * len(settings)),
            quantiles=np.stack([last[:, None, None] * np.exp(moves)] * len(settings)),
            levels=QUANTILE_LEVELS,
            seconds=time.perf_counter() - start,
        )


def _step_size(window: Window) -> float:
    """Root mean square of the context's log returns; 0 for a context of one bar."""
    returns = np.diff(np.log(window.bars["close"].to_numpy(dtype=np.float64)))
    return float(np.sqrt(np.mean(returns**2))) if len(returns) else 0.0
