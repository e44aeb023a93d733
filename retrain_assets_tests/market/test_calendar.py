"""Sessions of exchanges, and the cut of a month."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market.calendar import (
    MonthCut,
    MonthEnd,
    last_closed,
    last_closed_month,
    month_after,
    month_before,
    month_cut,
    month_end,
    next_sessions,
    session_close,
    sessions,
    zone,
)

YEAR = sessions("XNYS", pd.Timestamp("2023-01-01"), pd.Timestamp("2023-12-31"))


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


@pytest.mark.parametrize(
    ("date", "is_session"),
    [
        ("2023-11-23", False),  # Thanksgiving
        ("2023-11-24", True),  # closes early, still a session
        ("2021-06-18", True),  # Juneteenth was no holiday of the exchange before 2022
        ("2022-06-20", False),
        ("2012-10-29", False),  # hurricane
        ("2025-01-09", False),  # a day of mourning
        ("2023-09-02", False),  # Saturday
    ],
)
def test_known_days_of_new_york(date: str, is_session: bool) -> None:
    assert (len(sessions("XNYS", day(date), day(date))) == 1) is is_session


def test_sessions_are_naive_midnights_with_both_ends() -> None:
    found = sessions("XNYS", day("2023-08-31"), day("2023-09-05"))
    assert list(found) == [day("2023-08-31"), day("2023-09-01"), day("2023-09-05")]
    assert found.dtype == "datetime64[ns]"
    assert len(YEAR) == 250


def test_a_coin_trades_every_day() -> None:
    found = sessions("24/7", day("2024-02-01"), day("2024-02-29"))
    assert list(found) == list(pd.date_range("2024-02-01", "2024-02-29"))
    assert zone("24/7").key == "UTC"


def test_next_sessions_leave_out_the_day_itself_and_reach_far() -> None:
    assert list(next_sessions("XNYS", day("2023-08-31"), 2)) == [
        day("2023-09-01"),
        day("2023-09-05"),
    ]
    assert list(next_sessions("XNYS", day("2023-09-02"), 1)) == [day("2023-09-05")]
    far = next_sessions("XNYS", day("2025-06-30"), 1200)
    assert len(far) == 1200
    assert far[-1] > day("2029-12-31")
    assert len(next_sessions("24/7", day("2023-12-31"), 366)) == 366


def test_history_before_the_default_calendars_is_covered() -> None:
    assert len(sessions("XNYS", day("1985-01-01"), day("1985-12-31"))) == 252


def test_what_calendars_do_not_know_is_said() -> None:
    with pytest.raises(BadInput, match="'NYSE2' is no known calendar: use XNYS"):
        sessions("NYSE2", day("2023-01-01"), day("2023-01-31"))
    with pytest.raises(BadInput, match="outside 1885"):
        sessions("XNYS", day("1800-01-01"), day("2023-01-31"))
    with pytest.raises(BadInput, match=r"XHKG knows \d+ sessions after 2049-12-20, 40 are needed"):
        next_sessions("XHKG", day("2049-12-20"), 40)
    with pytest.raises(BadInput, match="it covers 1960-01-01 to 2049-12-31"):
        sessions("XHKG", day("1950-01-01"), day("2023-01-31"))


def test_a_session_closes_on_the_exchange_clock() -> None:
    assert session_close("XNYS", day("2023-08-31")) == pd.Timestamp("2023-08-31 20:00", tz="UTC")
    assert session_close("XNYS", day("2023-11-24")) == pd.Timestamp("2023-11-24 18:00", tz="UTC")
    assert session_close("24/7", day("2023-08-31")) == pd.Timestamp("2023-09-01", tz="UTC")


def test_a_month_ends_with_its_last_session() -> None:
    cut = month_cut("2023-08", YEAR, "XNYS", symbol="NVDA", today=dt.date(2024, 1, 5))
    assert cut == MonthCut("2023-08", day("2023-08-31"), day("2023-08-31"), provisional=False)
    # 30 September 2023 is a Saturday.
    cut = month_cut("2023-09", YEAR, "XNYS", symbol="NVDA", today=dt.date(2024, 1, 5))
    assert cut.cut == cut.last_session == day("2023-09-29")


def test_the_running_month_is_provisional_until_its_last_session_is_stored() -> None:
    today = dt.date(2023, 8, 31)
    running = month_cut("2023-08", YEAR[YEAR < "2023-08-31"], "XNYS", symbol="NVDA", today=today)
    assert running == MonthCut("2023-08", day("2023-08-30"), day("2023-08-31"), provisional=True)
    done = month_cut("2023-08", YEAR[YEAR <= "2023-08-31"], "XNYS", symbol="NVDA", today=today)
    assert not done.provisional


def test_a_later_bar_settles_a_month_whose_last_session_is_missing() -> None:
    stored = YEAR[(YEAR < "2023-08-31") | (YEAR > "2023-09-10")]
    cut = month_cut("2023-08", stored, "XNYS", symbol="NVDA", today=dt.date(2023, 10, 1))
    assert cut == MonthCut("2023-08", day("2023-08-30"), day("2023-08-31"), provisional=False)


def test_months_that_cannot_be_cut_say_why() -> None:
    today = dt.date(2024, 3, 5)
    for month in ("2023-13", "2023-8", "202308", "August", "2023-08-01", "0000-01"):
        with pytest.raises(BadInput, match="is malformed: write it as YYYY-MM"):
            month_cut(month, YEAR, "XNYS", symbol="NVDA", today=today)
    with pytest.raises(BadInput, match="2024-04 lies in the future"):
        month_cut("2024-04", YEAR, "XNYS", symbol="NVDA", today=today)
    with pytest.raises(
        BadInput,
        match="NVDA has no bar in 2024-02; its bars begin 2023-01-03 and end 2023-12-29: import",
    ):
        month_cut("2024-02", YEAR, "XNYS", symbol="NVDA", today=today)
    with pytest.raises(BadInput, match=r"no bar in 2022-12; its bars begin 2023-01-03.*choose"):
        month_cut("2022-12", YEAR, "XNYS", symbol="NVDA", today=today)
    hole = YEAR[(YEAR < "2023-05-01") | (YEAR > "2023-05-31")]
    with pytest.raises(BadInput, match=r"no bar in 2023-05.*import the missing ones"):
        month_cut("2023-05", hole, "XNYS", symbol="NVDA", today=today)
    with pytest.raises(BadInput, match="and none at all: import bars"):
        month_cut("2023-05", YEAR[:0], "XNYS", symbol="NVDA", today=today)


def test_the_default_today_is_the_clock() -> None:
    after = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=40)
    with pytest.raises(BadInput, match="lies in the future"):
        month_cut(f"{after:%Y-%m}", YEAR, "XNYS", symbol="NVDA")


@given(keep=st.sets(st.integers(0, len(YEAR) - 1), min_size=1), month=st.integers(1, 12))
def test_a_cut_is_the_last_stored_bar_of_its_month(keep: set[int], month: int) -> None:
    stored = YEAR[sorted(keep)]
    inside = stored[stored.month == month]
    arguments = (f"2023-{month:02}", stored, "XNYS")
    if inside.empty:
        with pytest.raises(BadInput, match="has no bar in"):
            month_cut(*arguments, symbol="A", today=dt.date(2024, 1, 5))
        return
    cut = month_cut(*arguments, symbol="A", today=dt.date(2024, 1, 5))
    assert cut.cut == inside[-1]
    later = stored[stored > cut.cut]
    assert cut.provisional == (cut.cut != cut.last_session and later.empty)
    # What is stored later in time changes nothing but whether the month is over.
    only = month_cut(*(arguments[0], stored[stored <= cut.cut], "XNYS"), symbol="A")
    assert (only.cut, only.last_session) == (cut.cut, cut.last_session)


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def test_a_month_ends_with_the_close_of_its_last_session() -> None:
    assert month_end("XNYS", "2023-09") == MonthEnd(
        "2023-09", day("2023-09-29"), utc("2023-09-29 20:00")
    )
    assert month_end("XNYS", "2024-11").close == utc("2024-11-29 18:00")  # half a day, in winter
    assert month_end("24/7", "2024-02").close == utc("2024-03-01")
    with pytest.raises(BadInput, match="malformed"):
        month_end("XNYS", "2024-13")


@given(
    minutes=st.integers(0, 3 * 365 * 24 * 60),
    hours=st.integers(0, 240),
    step=st.sampled_from([1, 3]),
    calendar=st.sampled_from(["XNYS", "24/7"]),
)
def test_the_last_closed_month_is_the_latest(
    minutes: int, hours: int, step: int, calendar: str
) -> None:
    moment = utc("2021-01-01") + pd.Timedelta(minutes=minutes)
    delay = pd.Timedelta(hours=hours)
    found = last_closed_month(calendar, moment, delay=delay, step=step)
    assert found == month_end(calendar, found.month)
    assert found.close + delay <= moment
    assert month_end(calendar, month_after(found.month, step)).close + delay > moment
    assert int(found.month[5:]) % step == 0


def test_months_are_counted_over_the_year() -> None:
    assert month_after("2023-12") == "2024-01"
    assert month_after("2023-09", 3) == "2023-12"
    assert month_before("2024-01") == "2023-12"


@pytest.mark.parametrize(
    ("calendar", "now", "delay", "session"),
    [
        ("XNYS", "2023-09-22 19:59", 0, "2023-09-21"),
        ("XNYS", "2023-09-22 20:00", 0, "2023-09-22"),
        ("XNYS", "2023-09-22 21:59", 2, "2023-09-21"),
        ("XNYS", "2023-09-22 22:00", 2, "2023-09-22"),
        # Over a weekend and a holiday.
        ("XNYS", "2023-09-05 15:00", 0, "2023-09-01"),
        # Half a day, at one o'clock in New York.
        ("XNYS", "2023-11-24 18:00", 0, "2023-11-24"),
        # The first session after the clocks were set back closes an hour later.
        ("XNYS", "2023-11-06 20:59", 0, "2023-11-03"),
        ("XNYS", "2023-11-06 21:00", 0, "2023-11-06"),
        # It is the 22nd in Tokyo.
        ("XTKS", "2023-09-22 06:00", 0, "2023-09-22"),
        ("24/7", "2023-09-22 23:59", 0, "2023-09-21"),
        ("24/7", "2023-09-23 00:00", 0, "2023-09-22"),
    ],
)
def test_a_session_has_closed_by_the_exchange_s_clock(
    calendar: str, now: str, delay: float, session: str
) -> None:
    moment = pd.Timestamp(now, tz="UTC")
    assert last_closed(calendar, moment, delay=pd.Timedelta(hours=delay)) == pd.Timestamp(session)
