"""Live forecasts: which bars are read, what the table says, what is refused, and in threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.live_forecaster import COLUMNS, LiveForecaster
from retrain_assets.evaluation.versions import Version
from retrain_assets.models.forecaster import Forecast, ModelLimits, Settings, Window
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets_tests.evaluation.forecasters import DEFAULT, GridForecaster, PathForecaster
from retrain_assets_tests.installed import made_bars

BARS = made_bars(400, seed=0)  # up to Monday 2023-09-11
AS_OF = "2023-09-11"
VERSION = Version(
    "grid", month="2023-08", adapter={"digest": "d" * 64}, settings=dict(DEFAULT), context=300
)


def live(forecaster: Any = None, **changes: Any) -> LiveForecaster:
    """A forecaster of AAA that looks back on 300 bars of at most 400, with BARS stored."""
    values = {
        "symbol": "AAA",
        "calendar": "XNYS",
        "names": ("AAA.US",),
        "version": VERSION,
        "source": "grid adapter of 2023-08",
        "history": BARS,
        "forecaster": forecaster or GridForecaster(),
        "limits": ModelLimits(400, 16),
        "threads": None,
    }
    return LiveForecaster(**(values | changes))


def everything_seen(window: Window) -> np.ndarray:
    """A path that tells how many bars were seen, and the last and first close of them."""
    close = window.bars["close"].to_numpy()
    return np.resize([len(close), close[-1], close[0]], len(window.future_sessions))


def test_the_table_has_one_row_a_session_of_the_symbol() -> None:
    table = live().predict(BARS, 60, as_of=AS_OF)
    assert tuple(table.columns) == COLUMNS
    assert list(table["session"].iloc[[0, 1, -1]].dt.strftime("%Y-%m-%d")) == [
        "2023-09-12",
        "2023-09-13",
        "2023-12-05",
    ]
    closes = table.set_index("session")["close_time"]
    assert closes.loc["2023-09-12"] == pd.Timestamp("2023-09-12T20:00:00Z")
    assert closes.loc["2023-11-24"] == pd.Timestamp("2023-11-24T18:00:00Z")  # half a day
    assert closes.loc["2023-11-27"] == pd.Timestamp("2023-11-27T21:00:00Z")  # in winter
    assert (table["naive"] == BARS["close"].iloc[-1]).all()
    coin = live(calendar="24/7", history=None).predict(BARS, 2, as_of="2023-09-12")
    assert coin["session"].iloc[1] == pd.Timestamp("2023-09-13")
    assert coin["close_time"].iloc[1] == pd.Timestamp("2023-09-14T00:00:00Z")


def test_prices_are_those_of_the_forecaster_under_the_version_s_settings_and_seed() -> None:
    version = Version("grid", settings=dict(DEFAULT) | {"temperature": 1.2}, context=300, seed=9)
    table = live(version=version).predict(BARS, 5, as_of=AS_OF)
    window = Window(BARS.iloc[-300:].reset_index(drop=True), pd.DatetimeIndex(table["session"]))
    expected = GridForecaster().forecast([window], [version.settings], seed=9)
    for name, values in {
        "mean": expected.mean[0, 0],
        "median": expected.median[0, 0],
        "q10": expected.quantiles[0, 0, 0],
        "q25": expected.quantiles[0, 0, 1],
        "q75": expected.quantiles[0, 0, 3],
        "q90": expected.quantiles[0, 0, 4],
    }.items():
        np.testing.assert_array_equal(table[name], values, err_msg=name)
    assert not np.array_equal(table["mean"], live().predict(BARS, 5, as_of=AS_OF)["mean"])


def test_the_table_says_where_it_comes_from() -> None:
    assert live().predict(BARS, 2, as_of=AS_OF).attrs == {
        "symbol": "AAA",
        "origin": "2023-09-11",
        "source": "grid adapter of 2023-08",
        "version": VERSION.id,
        "month": "2023-08",
        "adapter": "d" * 64,
        "context": 300,
        "notes": [],
    }
    bare = live(version=Version("grid", settings=dict(DEFAULT), context=300), history=None)
    attrs = bare.predict(BARS, 2, as_of=AS_OF).attrs
    assert attrs["adapter"] is None
    assert attrs["notes"] == ["no bars of AAA are stored to hold these against"]


def test_only_the_last_bars_that_the_version_looks_back_on_are_read() -> None:
    seen = live(PathForecaster("grid", everything_seen))
    table = seen.predict(BARS, 3, as_of=AS_OF)
    close = BARS["close"]
    assert list(table["mean"]) == [300, close.iloc[-1], close.iloc[-300]]
    pd.testing.assert_frame_equal(seen.predict(BARS.iloc[-300:], 3, as_of=AS_OF), table)
    with pytest.raises(BadInput, match=r"looks back on 300 bars of AAA, and 299 .* last 300"):
        seen.predict(BARS.iloc[-299:], 3, as_of=AS_OF)


def test_a_long_horizon_cuts_the_context_in_whole_patches_and_says_so() -> None:
    seen = live(PathForecaster("grid", everything_seen))
    table = seen.predict(BARS, 110, as_of=AS_OF)
    assert table["mean"].iloc[0] == table.attrs["context"] == 288
    assert table.attrs["notes"] == [
        "context 300 -> 288: with 110 bars to predict the model takes 400 in patches of 16"
    ]
    assert seen.predict(BARS, 100, as_of=AS_OF).attrs["context"] == 300
    assert seen.predict(BARS, 272, as_of=AS_OF).attrs["context"] == 128
    with pytest.raises(BadInput, match=r"a prediction length of 273 leaves 112 .* at most 272"):
        seen.predict(BARS, 273, as_of=AS_OF)


@pytest.mark.parametrize("horizon", [0, -1, 2.5, "7"])
def test_a_horizon_that_is_no_number_of_sessions_is_refused(horizon: Any) -> None:
    with pytest.raises(BadInput, match="give a whole number of sessions, at least 1"):
        live().predict(BARS, horizon, as_of=AS_OF)


def test_stale_early_foreign_and_malformed_bars_never_reach_the_model() -> None:
    grid = GridForecaster()
    one = live(grid, max_age_sessions=2)
    other = made_bars(400, seed=5)
    torn = BARS.copy()
    torn.loc[399, "high"] = np.nan
    for bars, as_of, said in [
        (BARS, "2023-09-14", "stale"),
        (BARS, "2023-09-08", "leave out the bars after it"),
        (other, AS_OF, "not those of AAA"),
        (BARS.assign(symbol="BBB"), AS_OF, "BBB where only AAA or AAA.US"),
        (torn, AS_OF, r"row 399 \(2023-09-11\), high"),
        (BARS.drop(columns="volume"), AS_OF, "no column volume"),
    ]:
        with pytest.raises(BadInput, match=said):
            one.predict(bars, 7, as_of=as_of)
    assert grid.calls == []
    one.predict(BARS.assign(symbol="aaa.us"), 7, as_of="2023-09-13")
    assert grid.calls == [(1, 1)]


def test_naive_is_at_hand_with_intervals_of_its_own() -> None:
    naive = live().naive
    table = naive.predict(BARS, 4, as_of=AS_OF)
    close = BARS["close"].to_numpy()
    assert (table[["mean", "median", "naive"]] == close[-1]).all(axis=None)
    step = np.sqrt(np.mean(np.diff(np.log(close[-256:])) ** 2))
    np.testing.assert_allclose(
        table["q90"], close[-1] * np.exp(1.2815515655446004 * step * np.sqrt([1, 2, 3, 4]))
    )
    assert table.attrs["version"] == table.attrs["source"] == "naive"
    assert naive.predict(BARS.iloc[-10:], 4, as_of=AS_OF).attrs["context"] == 10
    with pytest.raises(BadInput, match="stale"):
        naive.predict(BARS, 4, as_of="2023-12-01")


def test_values_that_are_not_finite_are_an_error_and_not_a_forecast() -> None:
    broken = live(PathForecaster("grid", lambda window: np.array([1.0, np.nan])))
    with pytest.raises(RetrainError, match=r"grid adapter .* AAA that are not finite .*`naive`"):
        broken.predict(BARS, 2, as_of=AS_OF)


class Alone(NaiveForecaster):
    """Fails if it is entered twice at a time."""

    def __init__(self) -> None:
        self.inside = 0

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        self.inside += 1
        time.sleep(0.01)
        assert self.inside == 1
        self.inside -= 1
        return super().forecast(windows, [{}], seed=seed)


def test_threads_take_turns_at_the_model() -> None:
    one = live(Alone())
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: one.predict(BARS, 3, as_of=AS_OF), range(8)))
    assert len(tables) == 8
