"""NLinear as a forecaster: windows of bars in, normal distributions of closes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    LoadedModel,
    Settings,
    SettingTraits,
    Window,
)
from retrain_assets.models.inputs import common_shape, evaluating
from retrain_assets.models.nlinear.bases import LOOKBACK
from retrain_assets.models.nlinear.training import closes
from retrain_assets.training.windows import normalise_windows


def damping(settings: Settings) -> float:
    """The one setting there is: the share of the forecast move that is kept.

    Raises BadInput for another name, and for a value out of range.
    """
    if set(settings) != {"damping"}:
        raise BadInput(f"NLinear has the setting damping alone, not {', '.join(settings)}")
    value = settings["damping"]
    if value is None or isinstance(value, bool) or not 0 <= value <= 1:
        raise BadInput(f"damping is {value!r}: give a number from 0 to 1")
    return float(value)


class NLinearForecaster:
    """Forecasts closes in closed form; implements `Forecaster`."""

    def __init__(self, model: LoadedModel, *, name: str) -> None:
        self.model, self.name = model, name

    def traits(self, settings: Settings) -> SettingTraits:
        """One reading serves every damping."""
        return SettingTraits(same=(damping(settings),), shared=(), cost=1)

    @torch.inference_mode()
    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """See `Forecaster.forecast`; nothing is drawn."""
        started = time.perf_counter()
        kept = np.array([damping(one) for one in settings])[:, None, None]
        context, steps = common_shape(windows, self.model)
        if context < LOOKBACK:
            raise BadInput(f"a context of {context} bars is too short: give at least {LOOKBACK}")
        with evaluating(self.model.module):
            # One by one, so that a forecast has the same bits in any company.
            read = [self._read(window, steps) for window in windows]
        mean, spread = (np.stack(part) for part in zip(*read, strict=True))  # (window, step)
        last = np.array([window.origin_close for window in windows])[:, None]
        middle = last + kept * (mean - last)
        scores = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=middle,
            median=middle,
            quantiles=middle[:, :, None] + scores[:, None] * spread[:, None],
            levels=QUANTILE_LEVELS,
            seconds=time.perf_counter() - started,
            computation={"device": str(self.model.device)},
        )

    def _read(self, window: Window, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each step, in the currency of the bars."""
        series = normalise_windows(closes(window.bars)[None], context=len(window.bars))
        known = torch.from_numpy(series.values[:, -LOOKBACK:, 0]).float().to(self.model.device)
        mean, variance = (part[0, :steps].double().cpu() for part in self.model.module(known))
        unit, centre = series.scale[0, 0], series.mean[0, 0]
        return mean.numpy() * unit + centre, variance.sqrt().numpy() * unit
