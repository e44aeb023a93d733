"""Naive persistence: what it forecasts, and that its intervals hold on a random walk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import QUANTILE_LEVELS, Window
from retrain_assets.models.naive import NaiveForecaster


def window_of(close: np.ndarray, steps: int) -> Window:
    sessions = pd.bdate_range("2020-01-01", periods=len(close) + steps)
    bars = pd.DataFrame({"session": sessions[: len(close)], "close": close})
    return Window(bars, sessions[len(close) :])


def test_the_last_close_is_carried_forward() -> None:
    windows = [window_of(np.array([1.0, 2.0, 4.0]), 3), window_of(np.array([5.0, 5.0, 5.0]), 3)]
    got = NaiveForecaster().forecast(windows, [{}, {}], seed=0)
    assert got.mean.shape == got.median.shape == (2, 2, 3)
    assert got.quantiles.shape == (2, 2, len(QUANTILE_LEVELS), 3)
    assert (got.mean[:, 0] == 4).all()
    assert (got.median[:, 1] == 5).all()
    # Every step doubled: one standard deviation is a factor of two, four steps are two.
    z = 1.2815515655446004
    assert got.quantiles[0, 0, -1, 0] == pytest.approx(4 * 2**z)
    assert got.quantiles[0, 0, 0, 2] == pytest.approx(4 * 2 ** (-z * 3**0.5))
    assert (got.quantiles[:, 1] == 5).all()
    assert list(got.origins) == [window.origin for window in windows]


def test_intervals_cover_a_random_walk_as_stated() -> None:
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (400, 207)), axis=1))
    windows = [window_of(path[:200], 7) for path in close]
    quantiles = NaiveForecaster().forecast(windows, [{}], seed=0).quantiles[0]
    below = (close[:, None, 200:] < quantiles).mean(axis=0)
    assert np.abs(below - np.array(QUANTILE_LEVELS)[:, None]).max() < 0.07


def test_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="temperature"):
        NaiveForecaster().forecast([window_of(np.ones(3), 2)], [{"temperature": 1.0}], seed=0)
