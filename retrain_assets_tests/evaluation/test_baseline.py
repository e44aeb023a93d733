"""The naive baseline: the guide's figures, the formula by hand, and which bars it reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput, NotEnoughBars
from retrain_assets.evaluation.baseline import (
    baseline_metrics,
    history_figures,
    naive_block_mae,
    naive_block_scale_free_pct,
    sessions_per_year,
)

# The file behind the published figures lies beside the repository, where there is one.
PUBLISHED = Path(__file__).parents[3] / "shared/data/synthetic_random_walk_aapl.csv"


def bars_of(close: np.ndarray) -> pd.DataFrame:
    sessions = pd.bdate_range("2015-01-01", periods=len(close))
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    return pd.DataFrame({"session": sessions, **columns, "volume": 1.0})


def random_walk(n_bars: int, seed: int = 0) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(0, 0.02, n_bars)
    return np.asarray(100 * np.exp(np.cumsum(returns)))


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not on this machine")
def test_the_published_figures() -> None:
    close = pd.read_csv(PUBLISHED)["close"].to_numpy()
    figures = history_figures(close, periods_per_year=252)
    for name, value in {
        "h16": 4.335723375579664,
        "h32": 5.576645747862899,
        "h64": 5.985167150212043,
        "h128": 9.574770363960962,
        "h64_pct": 5.956530447005239,
        "mean": 100.48076146779712,
        "std": 15.112879554683245,
    }.items():
        assert figures[name] == pytest.approx(value, rel=0, abs=1e-12)
    assert figures["count"] == 400


@pytest.mark.parametrize(("horizon", "errors"), [(16, 384), (32, 368), (64, 336), (128, 272)])
def test_every_bar_after_the_first_block_is_one_error(horizon: int, errors: int) -> None:
    close = np.ones(400)
    close[-1] = 1.0 + errors  # the only error: it alone makes the mean 1
    assert naive_block_mae(close, horizon) == pytest.approx(1.0)


def test_formula_by_hand() -> None:
    close = np.array([10.0, 20.0, 25.0, 15.0, 30.0])
    # Blocks of two: 20 is carried to 25 and 15, then 15 to the half block 30.
    assert naive_block_mae(close, 2) == pytest.approx((5 + 5 + 15) / 3)
    assert naive_block_scale_free_pct(close, 2) == pytest.approx(
        100 * (5 / 20 + 5 / 20 + 15 / 15) / 3
    )
    # A final block of one bar, and a block as long as all but the last bar.
    assert naive_block_mae(close, 4) == pytest.approx(15)
    with pytest.raises(NotEnoughBars, match="needs 6 bars, has 5"):
        naive_block_mae(close, 5)


def test_the_scale_free_error_ignores_the_price_level() -> None:
    close = random_walk(500)
    assert naive_block_scale_free_pct(7 * close, 16) == pytest.approx(
        naive_block_scale_free_pct(close, 16)
    )
    # A steady rise of 1 % a bar errs by the same share of its origin wherever it stands.
    rise = np.exp(np.log(1.01) * np.arange(512.0))
    expected = 100 * np.mean([1.01**step - 1 for step in range(1, 17)])
    assert naive_block_scale_free_pct(rise, 16) == pytest.approx(expected)
    assert naive_block_scale_free_pct(rise[:256], 16) == pytest.approx(expected)
    whole, half = (history_figures(c, periods_per_year=252)["h16_pct"] for c in (rise, rise[:256]))
    assert abs(whole - half) > 0.1


def test_horizons_without_bars_are_null_and_say_why() -> None:
    figures = history_figures(random_walk(65), periods_per_year=252)
    assert figures["h64"] is not None
    assert figures["h128"] is figures["h128_pct"] is figures["h128_scale_free_pct"] is None
    assert figures["unavailable"] == {
        "h128": "naive persistence over 128 bars needs 129 bars, has 65"
    }
    short = history_figures(random_walk(2), periods_per_year=252)
    assert short["volatility_daily_pct"] is None
    assert short["unavailable"]["volatility"] == "volatility needs 3 bars, has 2"
    json.dumps(short, allow_nan=False)


def test_volatility_is_the_sd_of_log_returns() -> None:
    close = np.exp(np.array([0.0, 0.01, -0.01, 0.03]))
    figures = history_figures(close, periods_per_year=365)
    daily = 100 * np.std([0.01, -0.02, 0.04], ddof=1)
    assert figures["volatility_daily_pct"] == pytest.approx(daily)
    assert figures["volatility_annual_pct"] == pytest.approx(daily * 365**0.5)
    assert (sessions_per_year("24/7"), sessions_per_year("XNYS")) == (365, 252)


def test_the_difficulty_reads_no_bar_of_the_selection_or_later() -> None:
    close = random_walk(800)
    calm = baseline_metrics(bars_of(close), selection_start=600, periods_per_year=252)
    wild_close = close.copy()
    wild_close[600:] *= np.linspace(1, 9, 200)
    wild = baseline_metrics(bars_of(wild_close), selection_start=600, periods_per_year=252)
    assert wild["before_selection"] == calm["before_selection"]
    assert wild["difficulty"] == calm["difficulty"]
    assert wild["baseline_mae_pct"] == calm["baseline_mae_pct"]
    assert calm["baseline_mae_pct"] == history_figures(close[:600], periods_per_year=252)["h64_pct"]
    assert wild["guide_mae_pct"] > calm["guide_mae_pct"] != calm["baseline_mae_pct"]
    assert wild["guide_difficulty"] != wild["difficulty"]
    json.dumps(calm, allow_nan=False)


def test_histories_that_have_no_baseline_are_refused() -> None:
    with pytest.raises(NotEnoughBars, match="needs 65 bars"):
        baseline_metrics(bars_of(random_walk(400)), selection_start=64, periods_per_year=252)
    close = random_walk(400)
    close[17] = 0.0
    with pytest.raises(BadInput, match="row 17"):
        baseline_metrics(bars_of(close), selection_start=300, periods_per_year=252)
