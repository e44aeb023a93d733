"""Drift and AutoETS: by hand, beside statsforecast called directly, and on awkward histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsforecast.models import AutoETS, RandomWalkWithDrift

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import QUANTILE_LEVELS, Forecast, Window
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets.models.statistical import (
    FEWEST_ETS_BARS,
    StatisticalForecaster,
    auto_ets,
    drift,
)

BOTH = pytest.mark.parametrize("own", [drift(), auto_ets()], ids=lambda own: own.name)
Z10, Z25 = 1.2815515655446004, 0.6744897501960817


def window_of(close: np.ndarray, steps: int) -> Window:
    sessions = pd.bdate_range("2020-01-01", periods=len(close) + steps)
    bars = pd.DataFrame({"session": sessions[: len(close)], "close": close})
    return Window(bars, sessions[len(close) :])


def walk(seed: int, bars: int, *, volatility: float = 0.02, trend: float = 0.0) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(trend, volatility, bars)
    return np.asarray(100 * np.exp(np.cumsum(returns)))


def forecast(own: StatisticalForecaster, close: np.ndarray, steps: int) -> Forecast:
    return own.forecast([window_of(close, steps)], [{}], seed=0)


def assert_prices(got: Forecast) -> None:
    """That all are positive and finite, and quantiles ascend by level around the median."""
    for values in (got.mean, got.median, got.quantiles):
        assert np.isfinite(values).all()
        assert (values > 0).all()
    assert (np.diff(got.quantiles, axis=2) >= 0).all()
    np.testing.assert_array_equal(got.median, got.quantiles[:, :, QUANTILE_LEVELS.index(0.5)])


def test_drift_by_hand() -> None:
    """Log steps of two and minus one doublings: half a doubling a bar, residuals of 1.5 each."""
    windows = [window_of(np.array([1.0, 4.0, 2.0]), 2), window_of(np.array([1.0, 2.0, 4.0]), 2)]
    got = drift().forecast(windows, [{}, {}], seed=0)
    assert got.mean.shape == got.median.shape == (2, 2, 2)
    assert got.quantiles.shape == (2, 2, len(QUANTILE_LEVELS), 2)
    assert list(got.origins) == [window.origin for window in windows]
    np.testing.assert_allclose(got.median[1, 0], [2 * 2**0.5, 4])
    # Variance of the steps 2.25; of h steps ahead h (1 + h / 2) times that: 3.375 and 9.
    spread = np.sqrt([3.375, 9])
    for level, z in ((0, -Z10), (1, -Z25), (3, Z25), (4, Z10)):
        np.testing.assert_allclose(got.quantiles[0, 0, level], got.median[0, 0] * 2 ** (z * spread))
    np.testing.assert_allclose(
        got.mean[0, 0], got.median[0, 0] * np.exp((spread * np.log(2)) ** 2 / 2)
    )
    # Every step doubled: nothing is uncertain.
    for sure in (got.mean[0, 1], got.median[0, 1], *got.quantiles[0, 1]):
        np.testing.assert_allclose(sure, [8, 16])


@pytest.mark.parametrize(
    ("own", "theirs"),
    [(drift(), RandomWalkWithDrift()), (auto_ets(), AutoETS(season_length=1, model="AZN"))],
    ids=["drift", "auto_ets"],
)
@pytest.mark.parametrize("trend", [0.0, 0.01])
def test_quantiles_are_the_intervals_of_statsforecast_on_logs(
    own: StatisticalForecaster, theirs: Any, trend: float
) -> None:
    close = walk(1, 300, trend=trend)
    got = forecast(own, close, 20)
    log = theirs.forecast(np.log(close / close[-1]), h=20, level=[50, 80])
    rows = [log["lo-80"], log["lo-50"], log["mean"], log["hi-50"], log["hi-80"]]
    np.testing.assert_allclose(got.quantiles[0, 0], close[-1] * np.exp(rows), rtol=1e-6)
    assert_prices(got)


def test_auto_ets_goes_on_with_a_trend_and_with_none() -> None:
    steady = 50 * 1.004 ** np.arange(200) * walk(2, 200, volatility=1e-5) / 100
    got = forecast(auto_ets(), steady, 10)
    np.testing.assert_allclose(got.median[0, 0], steady[-1] * 1.004 ** np.arange(1, 11), rtol=1e-3)
    noise = 100 * np.exp(np.random.default_rng(3).normal(0, 0.02, 300))
    level = forecast(auto_ets(), noise, 10).median[0, 0]
    np.testing.assert_allclose(level, 100, rtol=0.01)


@BOTH
def test_intervals_cover_a_random_walk_as_stated(own: StatisticalForecaster) -> None:
    close = np.stack([walk(seed, 157) for seed in range(200)])
    windows = [window_of(path[:150], 7) for path in close]
    quantiles = own.forecast(windows, [{}], seed=0).quantiles[0]
    below = (close[:, None, 150:] < quantiles).mean(axis=0)
    assert np.abs(below - np.array(QUANTILE_LEVELS)[:, None]).max() < 0.09


@BOTH
def test_a_forecast_depends_on_its_window_alone(own: StatisticalForecaster) -> None:
    windows = [window_of(walk(seed, 140), 9) for seed in range(3)]
    before = [window.bars.copy() for window in windows]
    together = own.forecast(windows, [{}], seed=0)
    alone = [own.forecast([window], [{}, {}], seed=7) for window in reversed(windows)]
    for i, one in enumerate(reversed(alone)):
        assert one.mean.shape == (2, 1, 9)
        for setting in (0, 1):
            np.testing.assert_array_equal(one.mean[setting, 0], together.mean[0, i])
            np.testing.assert_array_equal(one.quantiles[setting, 0], together.quantiles[0, i])
    for window, bars in zip(windows, before, strict=True):
        pd.testing.assert_frame_equal(window.bars, bars)


@BOTH
@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bars=st.integers(1, 200),
    volatility=st.sampled_from([0.0, 1e-9, 0.01, 0.3]),
    trend=st.sampled_from([-0.02, 0.0, 0.02]),
    unit=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_prices_are_positive_and_quantiles_ascend(
    own: StatisticalForecaster,
    seed: int,
    bars: int,
    volatility: float,
    trend: float,
    unit: float,
) -> None:
    close = unit * walk(seed, bars, volatility=volatility, trend=trend)
    assert_prices(forecast(own, close, 128))


@BOTH
def test_another_unit_gives_the_same_forecast_in_that_unit(own: StatisticalForecaster) -> None:
    close = walk(4, 200)
    one, other = forecast(own, close, 16), forecast(own, close / 1000, 16)
    np.testing.assert_allclose(other.quantiles * 1000, one.quantiles, rtol=1e-4)
    np.testing.assert_allclose(other.mean * 1000, one.mean, rtol=1e-4)


@BOTH
@pytest.mark.parametrize("bars", [1, 2, FEWEST_ETS_BARS - 1, FEWEST_ETS_BARS, 300])
def test_a_constant_history_goes_on_for_certain(own: StatisticalForecaster, bars: int) -> None:
    got = forecast(own, np.full(bars, 0.3), 64)
    for values in (got.mean, got.median, got.quantiles):
        np.testing.assert_array_equal(values, 0.3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bars", range(1, 13))
def test_a_history_too_short_to_choose_a_model_is_a_random_walk(bars: int) -> None:
    close = walk(5, bars)
    got = forecast(auto_ets(), close, 5)
    assert_prices(got)
    assert_prices(forecast(drift(), close, 5))
    naive = NaiveForecaster().forecast([window_of(close, 5)], [{}], seed=0)
    if bars < FEWEST_ETS_BARS:
        np.testing.assert_allclose(got.quantiles, naive.quantiles)
    else:
        assert not np.allclose(got.quantiles, naive.quantiles, rtol=1e-3)


@BOTH
def test_settings_are_refused(own: StatisticalForecaster) -> None:
    with pytest.raises(BadInput, match=rf"{own.name} has no settings.* temperature"):
        own.forecast([window_of(np.ones(3), 2)], [{"temperature": 1.0}], seed=0)
    assert own.traits({}).same == ()
