"""Cheap forecasters and histories with known answers, for the tests of this folder."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import Candidate
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    ModelLimits,
    Settings,
    SettingTraits,
    Window,
)
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets.training.splits import Split, make_split

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


GRID = {
    "num_samples": (5, 10, 20, 50),
    "temperature": (0.5, 0.7, 1.0, 1.2),
    "top_k": (20, 50, None),
    "top_p": (0.8, 0.9, 0.95, None),
}
"""192 settings in 48 groups of four nested sizes."""
DEFAULT = {"num_samples": 10, "temperature": 0.6, "top_k": None, "top_p": 0.9}


class GridForecaster:
    """Random paths around the last close, by seed, origin and the settings that are not a size.

    `spread` is the daily standard deviation of a path's log close under given settings: the
    smaller, the nearer to naive, which nothing beats on a random walk. Where it is a constant
    no setting is any better than another. `calls` holds what was asked for: windows, settings.
    """

    def __init__(self, spread: Callable[[Settings], float] = lambda settings: 0.01) -> None:
        self.name = "kronos"
        self.spread = spread
        self.calls: list[tuple[int, int]] = []

    def traits(self, settings: Settings) -> SettingTraits:
        temperature, size = settings["temperature"], settings["num_samples"]
        if temperature is None or temperature <= 0:
            raise BadInput(f"temperature must be above 0, not {temperature}")
        assert size is not None
        shared = (temperature, settings["top_k"], settings["top_p"])
        return SettingTraits(same=(*shared, size), shared=shared, cost=int(size))

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        self.calls.append((len(windows), len(settings)))
        closes = [[self._closes(window, one, seed) for window in windows] for one in settings]
        levels = [np.quantile(paths, QUANTILE_LEVELS, axis=1) for paths in map(_stack, closes)]
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=np.stack([_stack(paths).mean(axis=1) for paths in closes]),
            median=np.stack([np.median(_stack(paths), axis=1) for paths in closes]),
            quantiles=np.stack([level.swapaxes(0, 1) for level in levels]),
            levels=QUANTILE_LEVELS,
            seconds=0.0,
        )

    def _closes(self, window: Window, settings: Settings, seed: int) -> np.ndarray:
        """Paths of closes, (path, step): the first so many of 50."""
        steps, size = len(window.future_sessions), self.traits(settings).cost
        paths = _noise(seed, window.origin.value, steps, self.traits(settings).shared)[:size]
        return np.asarray(window.origin_close * np.exp(self.spread(settings) * paths))


@functools.lru_cache(maxsize=5000)
def _noise(seed: int, origin: int, steps: int, shared: tuple[object, ...]) -> np.ndarray:
    """Random walks of unit steps, (path, step)."""
    key = zlib.crc32(repr((seed, origin, steps, shared)).encode())
    return np.random.default_rng(key).normal(size=(50, steps)).cumsum(axis=1)


def _stack(paths: list[np.ndarray]) -> np.ndarray:
    return np.stack(paths)


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
