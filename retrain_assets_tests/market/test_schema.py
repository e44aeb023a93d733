"""What the schema refuses, in which words, and what is merely pointed out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market.schema import validate, warnings
from retrain_assets_tests.market.made import walk


def error_of(bars: pd.DataFrame, calendar: str | None = "XNYS") -> str:
    with pytest.raises(BadInput) as caught:
        validate(bars, symbol="NVDA", calendar=calendar, where="nvda.csv")
    return str(caught.value)


def changed(row: int, **values: object) -> pd.DataFrame:
    bars = walk()
    for name, value in values.items():
        bars.loc[row, name] = value
    return bars


def test_good_bars_pass_and_get_a_fresh_index() -> None:
    bars = walk().set_axis(pd.Index(range(2, 42), name="line"))
    passed = validate(bars, symbol="NVDA", calendar="XNYS", where="nvda.csv")
    pd.testing.assert_frame_equal(passed, walk())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"open": 0.0}, "open: 0 is not above 0"),
        ({"low": -3.5}, "low: -3.5 is not above 0"),
        ({"close": np.nan}, "close: nan is empty or no number"),
        ({"high": np.inf}, "high: inf is not finite"),
        ({"volume": -1.0}, "volume: -1 is below 0"),
        ({"volume": np.nan}, "volume: nan is empty or no number"),
        ({"low": 150.0}, "low: 150 is above the row's open, high or close; are columns swapped"),
        ({"high": 50.0}, "high: 50 is below the row's open, low or close; are columns swapped"),
    ],
)
def test_a_bad_value_is_named_with_file_row_field_and_remedy(
    values: dict[str, float], says: str
) -> None:
    error = error_of(changed(3, **values))
    assert error.startswith("nvda.csv: bad values of NVDA (")
    assert "row 3 (2023-07-07), " + says in error
    assert "correct the row at its source or remove it" in error


def test_sessions_must_be_unique_ascending_dates_of_the_calendar() -> None:
    assert "row 3 (2023-07-06), session: 2023-07-06 occurs twice; keep one" in error_of(
        changed(3, session=pd.Timestamp("2023-07-06"))
    )
    assert "row 4 (2023-07-10), session: 2023-07-10 comes after a later session" in error_of(
        changed(3, session=pd.Timestamp("2023-07-21")).drop(index=14)
    )
    assert "session: 2023-07-04 is no session of the calendar; remove the row" in error_of(
        changed(0, session=pd.Timestamp("2023-07-04")).drop(index=1)
    )
    assert "session: 2023-07-07 09:30:00 is no midnight; give daily bars" in error_of(
        changed(3, session=pd.Timestamp("2023-07-07 09:30"))
    )
    assert "row 3 (no date), session: no date is empty" in error_of(changed(3, session=pd.NaT))


def test_without_a_calendar_any_day_may_be_a_session() -> None:
    saturday = changed(39, session=pd.Timestamp("2023-09-09"))
    validate(saturday, symbol="NVDA", calendar=None, where="nvda.csv")
    assert "2023-09-09 is no session" in error_of(saturday)


def test_only_the_first_defects_are_spelled_out() -> None:
    error = error_of(walk().assign(volume=-1.0))
    assert error.splitlines()[0] == "nvda.csv: bad values of NVDA (40)"
    assert error.count("volume: -1") == 5
    assert error.endswith("and 35 more")


def test_rows_are_named_by_their_lines() -> None:
    bars = changed(3, volume=-1.0).set_axis(pd.Index(range(2, 42), name="line"))
    assert "line 5 (2023-07-07), volume" in error_of(bars)


def test_another_shape_of_frame_is_described() -> None:
    assert "NVDA has the columns session datetime64[ns], open float64" in error_of(
        walk().drop(columns="volume")
    )
    assert "volume int64; bars have session, open" in error_of(walk().astype({"volume": int}))
    zoned = walk().assign(session=walk()["session"].dt.tz_localize("UTC"))
    assert "session as datetime64[ns] without a zone" in error_of(zoned)
    assert "NVDA has no bars" in error_of(walk().iloc[:0])


@settings(max_examples=30, deadline=None)
@given(
    row=st.integers(0, 39),
    field=st.sampled_from(["open", "high", "low", "close"]),
    value=st.one_of(st.floats(max_value=0.0), st.just(np.nan), st.just(np.inf)),
)
def test_no_price_that_is_no_positive_number_passes(row: int, field: str, value: float) -> None:
    assert f"row {row} (" in error_of(changed(row, **{field: value}))


def test_calm_bars_give_no_warning() -> None:
    assert warnings(walk(), "XNYS") == []


def test_missing_sessions_are_listed_as_spans() -> None:
    bars = walk().drop(index=[4, 10, 11, 12]).reset_index(drop=True)
    assert warnings(bars, "XNYS") == ["missing sessions (4): 2023-07-10, 2023-07-18 to 2023-07-20"]
    # A stock's weekends are missing sessions of a coin's calendar.
    (found,) = warnings(walk(), "24/7")
    assert found.startswith("missing sessions (17): 2023-07-04, 2023-07-08 to 2023-07-09, ")
    assert found.endswith(" and 4 more")


def test_long_runs_without_volume_are_listed() -> None:
    bars = walk()
    bars.loc[[2, 3, 4, 5, 20, 21, 22, 23, 24], "volume"] = 0.0
    assert warnings(bars, "XNYS") == [
        "long runs of sessions without volume (5): 2023-08-01 to 2023-08-07"
    ]


def test_repeated_bars_without_volume_are_listed() -> None:
    bars = walk()
    for row in (7, 8):
        bars.loc[row, bars.columns[1:]] = [*bars.loc[6, ["open", "high", "low", "close"]], 0.0]
    assert warnings(bars, "XNYS") == [
        "sessions without volume that repeat the bar before (2): 2023-07-13 to 2023-07-14"
    ]


def test_large_moves_are_listed() -> None:
    bars = walk()
    prices = ["open", "high", "low", "close"]
    bars.loc[20:, prices] *= 1.55
    assert warnings(bars, "XNYS") == ["sessions that moved the close 1.5 x or more (1): 2023-08-01"]
    bars.loc[20:, prices] /= 1.55 * 4
    (found,) = warnings(bars, "XNYS")
    assert found.startswith("2023-08-01: close is 1/4")
    assert "a 4:1 split that the prices before it are not adjusted for?" in found
