"""The naive forecast: tomorrow's close is today's, with a random walk's spread around it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import QUANTILE_LEVELS, Forecast, Settings, Window


class NaiveForecaster:
    """Carries the last close forward; implements `Forecaster`.

    Mean and median are the origin's close at every step. Quantiles are those of a driftless
    Gaussian random walk of log prices: close x exp(z x sd x sqrt(step)), with z the standard
    normal quantile and sd the standard deviation (ddof 1) of the context's daily log returns.
    There are no parameters: a setting must be {}.
    """

    name = "naive"

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """Forecast every window; the seed changes nothing.

        Raises BadInput for a setting that is not empty, for windows of different shapes, and
        for a context of fewer than 3 bars or with a close that is not a positive number.
        """
        started = time.perf_counter()
        for setting in settings:
            if setting:
                raise BadInput(f"the naive forecast has no settings, yet got {dict(setting)}")
        if not windows or not settings:
            raise BadInput("nothing to forecast: give at least one window and one setting")
        shapes = {(len(window.bars), len(window.future_sessions)) for window in windows}
        if len(shapes) > 1:
            raise BadInput(
                f"windows of one call must have the same context and steps, not {sorted(shapes)}"
            )
        context, steps = shapes.pop()
        if context < 3:
            raise BadInput(f"a spread needs a context of at least 3 bars, not {context}")
        closes = np.stack([w.bars["close"].to_numpy(dtype=np.float64) for w in windows])
        if not (np.isfinite(closes) & (closes > 0)).all():
            raise BadInput("the naive forecast needs closes that are positive numbers")

        last = closes[:, -1, None]  # (window, 1)
        deviation = np.diff(np.log(closes), axis=1).std(axis=1, ddof=1)[:, None]
        spread = deviation * np.sqrt(np.arange(1, steps + 1))  # (window, step)
        scores = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
        quantiles = last[:, None] * np.exp(scores[:, None] * spread[:, None])
        flat = np.repeat(last, steps, axis=1)
        copies = len(settings)
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=np.stack([flat] * copies),
            median=np.stack([flat] * copies),
            quantiles=np.stack([quantiles] * copies),
            levels=QUANTILE_LEVELS,
            seconds=time.perf_counter() - started,
        )
