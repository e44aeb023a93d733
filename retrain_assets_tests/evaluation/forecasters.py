"""Cheap forecasters and histories with known answers, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from retrain_assets.evaluation.comparison import Candidate
from retrain_assets.evaluation.splits import Split, make_split
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    ModelLimits,
    Settings,
    SettingTraits,
    Window,
)
from retrain_assets.models.naive import NaiveForecaster

PathOf = Callable[[Window], np.ndarray]


class PathForecaster:
    """Forecasts whatever `path` makes of a window; all quantiles lie on the path."""

    def __init__(self, name: str, path: PathOf) -> None:
        self.name = name
        self.path = path

    def traits(self, settings: Settings) -> SettingTraits:
        return SettingTraits(same=(), shared=(), cost=1)

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        mean = np.stack([self.path(window) for window in windows])[None]
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=mean,
            median=mean,
            quantiles=np.repeat(mean[:, :, None], len(QUANTILE_LEVELS), axis=2),
            levels=QUANTILE_LEVELS,
            seconds=0.0,
        )


def drift(window: Window) -> np.ndarray:
    """The context's mean log return goes on."""
    close = window.bars["close"].to_numpy()
    slope = np.log(close[-1] / close[0]) / (len(close) - 1)
    steps = np.arange(1, len(window.future_sessions) + 1)
    return np.asarray(close[-1] * np.exp(slope * steps))


def everything(window: Window) -> np.ndarray:
    """A path that moves with every value the window holds, future sessions among them."""
    numbers = window.bars.drop(columns="session").to_numpy()
    weights = np.linspace(1, 2, numbers.size).reshape(numbers.shape)
    days = window.bars["session"].astype("int64").sum() % 1009
    ahead = window.future_sessions.astype("int64").to_numpy() % 1013
    return np.asarray((numbers * weights).sum() + days + ahead)


def naive(context: int) -> Candidate:
    return Candidate("naive", NaiveForecaster(), {}, context)


def candidate(name: str, path: PathOf, context: int) -> Candidate:
    return Candidate(name, PathForecaster(name, path), {}, context)


def random_walk(n_bars: int, seed: int) -> pd.DataFrame:
    """Bars whose closes are a driftless random walk of 2 % a day."""
    returns = np.random.default_rng(seed).normal(0, 0.02, n_bars)
    return bars_of(100 * np.exp(np.cumsum(returns)))


def bars_of(close: np.ndarray) -> pd.DataFrame:
    sessions = pd.bdate_range("2015-01-01", periods=len(close))
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    return pd.DataFrame({"session": sessions, **columns, "volume": 1.0})


def split_of(n_bars: int) -> Split:
    """A split with horizon 16 and seven holdout days."""
    return make_split(n_bars, context=128, horizon=16, holdout_days=7, limits=ModelLimits(512))
