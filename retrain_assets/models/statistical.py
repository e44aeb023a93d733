"""Drift and exponential smoothing as forecasters: what a trained model should at least match.

Both are statsforecast's, fitted on each window's log closes and on nothing else. On logs every
price a forecast names is positive, however wide its interval; a step is a percentage, as steep
for a stock at 3 as at 300; and a history in another unit gives the same forecast in that unit.

On raw closes, where neither holds, the mean path erred as much or more. Over 715 origins of 55 US
stocks, 2022 to 2025, with a context of 448 bars, the skill over naive was, raw -> log: of drift
.1 -> .3 % at 7 sessions, .8 -> 2.0 % at 16, -.5 -> 0 % at 64; of AutoETS -.2 -> -.2, .5 -> .9 and
.8 -> .9 %. AutoETS' CRPS was worse on logs, by .2 to .3 % of naive's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    Settings,
    SettingTraits,
    Window,
)

FEWEST_ETS_BARS = 8
"""AutoETS refuses 6 bars and fewer; with 7 its damped trend, which has 6 parameters, divides by
zero in the error variance."""
_LEVEL = 80
"""Of the interval that is read from statsforecast, in %."""


class Moves(NamedTuple):
    """Normal distributions of the log of (close / last close), both of shape (step,)."""

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass
class StatisticalForecaster:
    """A fit of its own for every window; has no settings and draws nothing.

    name: in tables. moves: from the logs of (close / last close), shape (bar,), the last of them
    0, and the number of steps to the distribution of what follows.
    """

    name: str
    moves: Callable[[NDArray[np.float64], int], Moves]

    def traits(self, settings: Settings) -> SettingTraits:
        """There are no settings, so there is one forecast. Raises BadInput for any setting."""
        if settings:
            given = ", ".join(sorted(settings))
            raise BadInput(f"{self.name} has no settings, but was given {given}")
        return SettingTraits(same=(), shared=(), cost=1)

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """Log-normal closes at every step; see `Forecaster.forecast`.

        With log moves of centre m and spread s the quantile at `level` is the last close times
        exp(m + z(level) x s), the median that times exp(m), the mean that times exp(m + s^2 / 2).
        Raises BadInput for any setting.
        """
        start = time.perf_counter()
        for setting in settings:
            self.traits(setting)
        steps = len(windows[0].future_sessions)
        # (window, step)
        centre, spread = map(np.stack, zip(*(self._moves(w, steps) for w in windows), strict=True))
        last = np.array([window.origin_close for window in windows])[:, None]
        scores = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
        # (window, level, step)
        moves = centre[:, None] + spread[:, None] * scores[:, None]
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=np.stack([last * np.exp(centre + spread**2 / 2)] * len(settings)),
            median=np.stack([last * np.exp(centre)] * len(settings)),
            quantiles=np.stack([last[:, None] * np.exp(moves)] * len(settings)),
            levels=QUANTILE_LEVELS,
            seconds=time.perf_counter() - start,
        )

    def _moves(self, window: Window, steps: int) -> Moves:
        logs = np.log(window.bars["close"].to_numpy(dtype=np.float64))
        return self.moves(logs - logs[-1], steps)


def drift() -> StatisticalForecaster:
    """A random walk of log closes whose mean step goes on: statsforecast's RandomWalkWithDrift.

    The interval allows for the mean step being an estimate. A constant history has neither step
    nor spread, so the last close is every quantile; so it is for a history of one bar.
    """
    return StatisticalForecaster("drift", _drift_moves)


def auto_ets() -> StatisticalForecaster:
    """Exponential smoothing of log closes, the trend (none, linear, damped) picked by AICc.

    statsforecast's AutoETS without a season, daily bars having none that is worth a parameter.
    Errors are additive: on logs that is a percentage already, while a percentage of a log would
    depend on the currency. The intervals of these models are closed forms, so nothing is drawn.
    A fit takes about 20 ms for a context of 448 bars and 43 ms for 1024 on one core, too little
    to cut the context for.

    A constant history is no choice to AutoETS: it takes a level with alpha = .9999 and an error
    variance of 0, so the last close is every quantile. A history shorter than FEWEST_ETS_BARS has
    too few bars for a choice either, and gets the same model with alpha = 1: a random walk whose
    step is the root mean square change, naive's own interval.
    """
    return StatisticalForecaster("auto_ets", _auto_ets_moves)


def _drift_moves(logs: NDArray[np.float64], steps: int) -> Moves:
    from statsforecast.models import RandomWalkWithDrift

    if len(logs) < 2:  # no change to go on
        return _random_walk(logs, steps)
    return _read(RandomWalkWithDrift().forecast(logs, h=steps, level=[_LEVEL]))


def _auto_ets_moves(logs: NDArray[np.float64], steps: int) -> Moves:
    from statsforecast.models import AutoETS

    if len(logs) < FEWEST_ETS_BARS:
        return _random_walk(logs, steps)
    model = AutoETS(season_length=1, model="AZN")
    return _read(model.forecast(logs, h=steps, level=[_LEVEL]))


def _read(found: dict[str, Any]) -> Moves:
    """Centre and spread behind a normal interval: one level of it implies all others."""
    half = (found[f"hi-{_LEVEL}"] - found[f"lo-{_LEVEL}"]) / 2
    return Moves(found["mean"], half / NormalDist().inv_cdf(0.5 + _LEVEL / 200))


def _random_walk(logs: NDArray[np.float64], steps: int) -> Moves:
    """No drift; a step of the root mean square change, 0 where there is one bar."""
    changes = np.diff(logs)
    step = float(np.sqrt(np.mean(changes**2))) if len(changes) else 0.0
    return Moves(np.zeros(steps), step * np.sqrt(np.arange(1, steps + 1)))
