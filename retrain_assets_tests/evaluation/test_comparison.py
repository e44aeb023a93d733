"""The comparison's table: which forecasts it holds, and that no forecast sees its future."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation import comparison
from retrain_assets.evaluation.comparison import (
    AUTO_ETS,
    NAIVE,
    VARIANTS,
    Candidate,
    candidate_name,
    candidate_names,
    compare,
    window_at,
)
from retrain_assets.models.forecaster import Window
from retrain_assets.models.statistical import auto_ets
from retrain_assets.models.statistical import drift as statistical_drift
from retrain_assets_tests.evaluation.forecasters import (
    DEFAULT,
    GridForecaster,
    candidate,
    drift,
    everything,
    naive,
    random_walk,
    split_of,
)

DRIFT = candidate("kronos.adapter", drift, 100)


def test_every_candidate_forecasts_the_same_origins() -> None:
    bars, split = random_walk(600, 0), split_of(600)
    lines: list[str] = []
    got = compare(
        bars, split, [naive(128), DRIFT], symbol="NVDA", seed=0, report=lines.append
    ).forecasts
    counts = got.groupby(["segment", "scope", "horizon"])["cutoff"].agg(["nunique", "size"])
    assert counts.to_dict("index") == {
        ("selection", "holdout", 7): {"nunique": 26, "size": 26 * 7},
        ("test", "holdout", 7): {"nunique": 3, "size": 21},
        ("test", "plan", 16): {"nunique": 8, "size": 8 * 16},
    }
    assert list(got.columns[:9]) == [
        "unique_id",
        "segment",
        "scope",
        "horizon",
        "cutoff",
        "ds",
        "step",
        "origin_close",
        "y",
    ]
    assert candidate_names(got) == ["naive", "kronos.adapter"]
    assert (got["unique_id"] == "NVDA").all()
    close = bars.set_index("session")["close"]
    np.testing.assert_array_equal(got["y"], close.loc[got["ds"]])
    np.testing.assert_array_equal(got["origin_close"], close.loc[got["cutoff"]])
    np.testing.assert_array_equal(got["naive"], got["origin_close"])
    position = pd.Series(range(600), index=bars["session"])
    ahead = position.loc[got["ds"]].to_numpy() - position.loc[got["cutoff"]].to_numpy()
    np.testing.assert_array_equal(ahead, got["step"])
    assert got["ds"].max() == bars["session"].iloc[-1]
    ends = got[["naive/q10", "naive/q25", "naive/median", "naive/q75", "naive/q90"]]
    assert (np.diff(ends, axis=1) > 0).all()
    assert not got.isna().any(axis=None)
    assert len(lines) == 6
    assert lines[1] == "NVDA: kronos.adapter forecasts 26 selection origins, 7 bars each"


def test_a_candidate_sees_its_own_context_and_the_stored_sessions() -> None:
    bars = random_walk(300, 1)
    window = window_at(bars, 200, 50, 7)
    pd.testing.assert_frame_equal(window.bars, bars.iloc[151:201].reset_index(drop=True))
    assert list(window.future_sessions) == list(bars["session"].iloc[201:208])
    with pytest.raises(BadInput, match="starts before the history"):
        window_at(bars, 200, 202, 7)


@pytest.mark.parametrize("back", [1, 8, 16, 17, 60])
def test_no_row_after_an_origin_changes_its_forecast(back: int) -> None:
    """Corrupt every row from `back` bars before the cut: older origins forecast the same."""
    bars, split = random_walk(600, 2), split_of(600)
    candidates = [naive(128), candidate("kronos.adapter", everything, 128)]
    corrupted = bars.copy()
    values = corrupted.columns.drop("session")
    corrupted.loc[600 - back :, values] *= 1000.0
    before, after = (
        compare(b, split, candidates, symbol="NVDA", seed=0).forecasts for b in (bars, corrupted)
    )
    safe = before["cutoff"] < bars["session"].iloc[600 - back]
    columns = list(before.columns[9:])
    pd.testing.assert_frame_equal(before.loc[safe, columns], after.loc[safe, columns])
    # The check can fail: the forecaster does move with a row that it may see.
    moved = (before["kronos.adapter"] != after["kronos.adapter"])[~safe]
    assert moved.all()
    assert safe.any()
    assert len(moved) > 0 or back <= 7


def test_the_statistical_baselines_take_part_like_any_other() -> None:
    bars, split = random_walk(400, 2), split_of(400)
    own = {"drift": statistical_drift(), "auto_ets": auto_ets()}
    candidates = [naive(128), *(Candidate(name, one, {}, 128) for name, one in own.items())]
    got = compare(bars, split, candidates, symbol="NVDA", seed=0)
    assert candidate_names(got.forecasts) == [NAIVE, "drift", AUTO_ETS] == list(got.latency_s)
    origin = split.plan_origins()[-1]
    last = got.forecasts.query("scope == 'plan'").tail(16)
    for name, forecaster in own.items():
        window = window_at(bars, origin, 128, 16)
        alone = forecaster.forecast([window], [{}], seed=1)
        np.testing.assert_array_equal(last[name], alone.mean[0, 0])
        np.testing.assert_array_equal(last[f"{name}/q25"], alone.quantiles[0, 0, 1])
        np.testing.assert_array_equal(last[f"{name}/q75"], alone.quantiles[0, 0, 3])


def test_a_forecaster_cannot_write_into_the_bars() -> None:
    def vandal(window: Window) -> np.ndarray:
        window.bars.loc[:, "close"] = 0.0
        return np.ones(len(window.future_sessions))

    bars, split = random_walk(400, 3), split_of(400)
    before = bars.copy()
    compare(bars, split, [naive(64), candidate("x", vandal, 64)], symbol="A", seed=0)
    pd.testing.assert_frame_equal(bars, before)


def test_latency_is_the_median_of_five_forecasts_after_a_warm_up() -> None:
    calls: list[int] = []
    origins = 20 + 3 + 8

    def slower_each_time(window: Window) -> np.ndarray:
        calls.append(len(window.future_sessions))
        time.sleep(0.02 * max(0, len(calls) - origins - 1))
        return drift(window)

    bars, split = random_walk(400, 4), split_of(400)
    candidates = [naive(64), candidate("slow", slower_each_time, 64)]
    got = compare(bars, split, candidates, symbol="A", seed=0)
    assert calls[origins:] == [7] * 6
    # Asleep for 0 (the warm-up), 20, 40, 60, 80 and 100 ms; a sleep may last longer, never less.
    assert got.latency_s["slow"] >= 0.06
    assert got.latency_p95_s["slow"] >= 0.096
    assert 0 < got.latency_s["naive"] < got.latency_s["slow"] < got.latency_p95_s["slow"]


def test_the_latencies_are_of_the_calls_that_were_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Clock readings before and after each of six calls, by candidate: warm-up, then 1, 2, 3, 4, 9.
    took = [50.0, 1.0, 9.0, 2.0, 4.0, 3.0, 60.0, 10.0, 90.0, 20.0, 40.0, 30.0]
    clock = iter([reading for seconds in took for reading in (0.0, seconds)])
    monkeypatch.setattr(comparison, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    bars, split = random_walk(400, 4), split_of(400)
    candidates = [naive(64), candidate("kronos.adapter", drift, 64)]
    got = compare(bars, split, candidates, symbol="A", seed=0)
    assert got.latency_s == {"naive": 3.0, "kronos.adapter": 30.0}
    # 95 % of the way through five values lies at .8 between the fourth and the fifth.
    assert got.latency_p95_s == pytest.approx({"naive": 8.0, "kronos.adapter": 80.0})


def test_candidates_that_must_forecast_the_same_are_computed_once() -> None:
    bars, split = random_walk(400, 4), split_of(400)
    forecaster, other = GridForecaster(), GridForecaster()
    warm = DEFAULT | {"temperature": 1.0}
    lines: list[str] = []
    candidates = [
        naive(64),
        Candidate("kronos.adapter", forecaster, DEFAULT, 64),
        Candidate("kronos.chosen", forecaster, dict(reversed(DEFAULT.items())), 64),
        Candidate("kronos.refined", forecaster, warm, 64),
        Candidate("kronos.incumbent", forecaster, DEFAULT, 32),
        Candidate("kronos.last_month", other, DEFAULT, 64),
    ]
    got = compare(bars, split, candidates, symbol="A", seed=0, report=lines.append)
    assert candidate_names(got.forecasts) == [one.name for one in candidates]
    # Three occasions and six timed calls for each of three computations, and for one elsewhere.
    assert len(forecaster.calls) == 3 * (3 + 6)
    assert len(other.calls) == 3 + 6
    assert len(lines) == 3 * 5
    assert not any("kronos.chosen" in line for line in lines)
    for part in ("", "/median", "/q10", "/q25", "/q75", "/q90"):
        adapter = got.forecasts[f"kronos.adapter{part}"]
        pd.testing.assert_series_equal(
            got.forecasts[f"kronos.chosen{part}"], adapter, check_names=False
        )
        assert (got.forecasts[f"kronos.refined{part}"] != adapter).any()
    for latency in (got.latency_s, got.latency_p95_s):
        assert list(latency) == [one.name for one in candidates]
        assert latency["kronos.chosen"] == latency["kronos.adapter"]
        assert latency["kronos.last_month"] != latency["kronos.adapter"]


def test_a_setting_that_is_not_the_models_is_refused_before_any_forecast() -> None:
    forecaster = GridForecaster()
    candidates = [
        Candidate("kronos.adapter", forecaster, DEFAULT, 64),
        Candidate("kronos.chosen", forecaster, DEFAULT | {"temperature": 0.0}, 64),
        naive(64),
    ]
    with pytest.raises(BadInput, match="temperature"):
        compare(random_walk(400, 6), split_of(400), candidates, symbol="A", seed=0)
    assert forecaster.calls == []


def test_a_forecast_that_is_not_finite_names_candidate_and_origin() -> None:
    bars, split = random_walk(400, 5), split_of(400)
    bad = bars["session"].iloc[split.holdout_origins("test")[1]]

    def broken(window: Window) -> np.ndarray:
        path = drift(window)
        if window.origin == bad:
            path[-1] = np.nan
        return path

    candidates = [naive(64), candidate("kronos.adapter", broken, 64)]
    with pytest.raises(RetrainError, match=f"kronos.adapter is not finite from .*{bad.date()}"):
        compare(bars, split, candidates, symbol="A", seed=0)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([DRIFT], "lack 'naive'"),
        ([naive(64), DRIFT, DRIFT], "given twice"),
        ([naive(64), candidate("a/b", drift, 64)], "malformed"),
    ],
)
def test_candidates_are_checked(candidates: list[Candidate], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compare(random_walk(400, 6), split_of(400), candidates, symbol="A", seed=0)


def test_names() -> None:
    assert candidate_name("kronos", "zero_shot") == "kronos.zero_shot"
    assert (NAIVE, AUTO_ETS) == ("naive", "auto_ets")
    assert (statistical_drift().name, auto_ets().name) == ("drift", AUTO_ETS)
    assert VARIANTS == ("zero_shot", "adapter", "chosen", "refined", "last_month", "incumbent")
