"""Bars handed over for a forecast: what is taken, and what is refused with which words."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BAR_COLUMNS
from retrain_assets.market.given import (
    checked_bars,
    last_complete_session,
    require_fresh,
    require_same_series,
)
from retrain_assets_tests.market.made import walk

FRIDAY = pd.Timestamp("2023-09-01")  # Monday the 4th is Labor Day


def checked(bars: pd.DataFrame) -> pd.DataFrame:
    return checked_bars(bars, symbol="META", names=("FB",), calendar="XNYS")


def fresh(bars: pd.DataFrame, as_of: object, most: int = 3) -> None:
    require_fresh(bars, symbol="META", calendar="XNYS", as_of=as_of, most_missed=most)


def test_dates_numbers_order_and_index_may_be_of_any_type() -> None:
    bars = walk()
    volume = bars["volume"].astype("int64")
    other = bars.assign(session=bars["session"].astype("datetime64[s]"), volume=volume)
    other = other[list(reversed(BAR_COLUMNS))].set_axis(range(100, 140))
    pd.testing.assert_frame_equal(checked(other), bars)
    pd.testing.assert_frame_equal(checked(bars.assign(symbol="fb")), bars)
    assert other["volume"].dtype == "int64"  # the caller's frame is left alone


def test_a_missing_column_is_named_and_a_surplus_one_refused() -> None:
    with pytest.raises(BadInput, match=r"no column session: give one row a session .* open, high"):
        checked(walk().set_index("session"))
    with pytest.raises(BadInput, match=r"has the columns .*amount.* bars have session, open"):
        checked(walk().assign(amount=1.0))
    with pytest.raises(BadInput, match="are a dict: give a pandas DataFrame"):
        checked({"close": [1.0]})  # type: ignore[arg-type]  # no frame, on purpose


def test_the_row_of_another_symbol_is_named() -> None:
    bars = walk().assign(symbol="META")
    bars.loc[7, "symbol"] = "AAPL"
    with pytest.raises(BadInput, match=r"row 7, symbol: AAPL where only FB or META .*1 of 40"):
        checked(bars)


def test_bad_values_are_named_by_row_and_field() -> None:
    bars = walk()
    bars.loc[3, "close"] = -1.0
    with pytest.raises(BadInput, match=r"row 3 \(2023-07-07\), close: -1 is not above 0"):
        checked(bars.set_axis(range(50, 90)))
    weekend = walk()
    weekend.loc[0, "session"] = pd.Timestamp("2023-07-02")
    with pytest.raises(BadInput, match=r"row 0 \(2023-07-02\), session: .*no session of the"):
        checked(weekend)
    zoned = walk()
    zoned["session"] = zoned["session"].dt.tz_localize("UTC")
    with pytest.raises(BadInput, match="without a zone"):
        checked(zoned)


@pytest.mark.parametrize(
    ("calendar", "as_of", "session"),
    [
        ("XNYS", "2023-09-01", "2023-09-01"),
        ("XNYS", dt.date(2023, 9, 4), "2023-09-01"),
        ("XNYS", "2023-09-01T20:00:00+00:00", "2023-09-01"),
        ("XNYS", "2023-09-01T19:59:59+00:00", "2023-08-31"),
        ("XNYS", pd.Timestamp("2023-09-01 16:00", tz="America/New_York"), "2023-09-01"),
        # Half a day: the Friday after Thanksgiving ends at 13:00 in New York.
        ("XNYS", "2023-11-24T18:00:00Z", "2023-11-24"),
        ("24/7", "2023-09-02T00:00:00Z", "2023-09-01"),
        ("24/7", "2023-09-01T23:59:59Z", "2023-08-31"),
    ],
)
def test_a_session_is_complete_once_it_has_closed(
    calendar: str, as_of: object, session: str
) -> None:
    assert last_complete_session(calendar, as_of) == pd.Timestamp(session)  # type: ignore[arg-type]


@pytest.mark.parametrize("as_of", ["yesterday", "2023-09-01 15:00", pd.NaT])
def test_a_moment_without_a_zone_and_what_is_none_are_refused(as_of: object) -> None:
    with pytest.raises(BadInput, match="give a date such as 2023-09-21, or a moment with its zone"):
        last_complete_session("XNYS", as_of)  # type: ignore[arg-type]  # on purpose


def test_by_default_the_moment_is_now() -> None:
    now = pd.Timestamp.now(tz="UTC")
    assert last_complete_session("24/7") == now.tz_localize(None).normalize() - pd.Timedelta(days=1)
    with pytest.raises(BadInput, match=r"stale: they end 2023-08-\d\d, and now the last"):
        fresh(walk(), None)


def test_bars_that_miss_more_sessions_than_allowed_are_stale() -> None:
    bars = walk(44)
    assert bars["session"].iloc[-1] == FRIDAY
    fresh(bars, "2023-09-07")  # the 5th, 6th and 7th are missing
    with pytest.raises(
        BadInput, match=r"end 2023-09-01, .* as of 2023-09-08 .* 2023-09-08, 4 sessions later"
    ):
        fresh(bars, "2023-09-08")
    fresh(bars, "2023-09-08", most=4)


def test_bars_after_the_moment_or_not_final_yet_are_refused() -> None:
    bars = walk(44)
    fresh(bars, "2023-09-01")
    for as_of in ("2023-08-31", "2023-09-01T15:00:00-04:00"):
        with pytest.raises(BadInput, match=r"end 2023-09-01, .* that of 2023-08-31: leave out"):
            fresh(bars, as_of)


def test_the_same_series_passes_with_what_vendors_differ_by() -> None:
    stored = walk(200)
    rounded = stored.assign(close=(stored["close"] * 0.9915).round(2))
    assert require_same_series(rounded, stored, symbol="META") is None
    revised = stored.copy()
    revised.loc[100, "close"] *= 3
    assert require_same_series(revised, stored, symbol="META") is None


def test_another_series_is_refused_even_at_the_same_price() -> None:
    stored = walk(200)
    draw = np.random.default_rng(1).normal(0, 0.01, 200)
    other = stored.assign(close=100 * np.exp(0.3 * np.cumsum(draw)))
    assert (other["close"] / stored["close"] - 1).abs().median() < 0.2
    with pytest.raises(BadInput, match=r"not those of META.* 200 sessions.*and move differently"):
        require_same_series(other, stored, symbol="META")


def test_a_split_since_is_refused_and_both_closes_are_shown() -> None:
    stored = walk(30)
    split = stored.assign(close=stored["close"] / 10)
    last = stored["close"].iloc[-1]
    with pytest.raises(BadInput, match="90 % apart at the median") as error:
        require_same_series(split, stored, symbol="META")
    assert f"{last / 10:.10g}, stored {last:.10g}" in str(error.value)
    assert "move differently" not in str(error.value)
    assert "splits" in str(error.value)


def test_without_a_common_session_it_is_said() -> None:
    note = require_same_series(walk(5, after="2022-01-03"), walk(), symbol="META")
    assert note is not None
    assert "share no session" in note
