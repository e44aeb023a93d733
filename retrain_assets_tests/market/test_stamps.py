"""Which session a time stamp means."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market.calendar import sessions
from retrain_assets.market.stamps import to_sessions

NEW_YORK, UTC = ZoneInfo("America/New_York"), ZoneInfo("UTC")
DAYS = pd.DatetimeIndex(["2023-03-09", "2023-03-10", "2023-03-13", "2023-11-06"])
YEAR = sessions("XNYS", pd.Timestamp("2023-01-01"), pd.Timestamp("2023-12-31"))


def read(stamps: object, zone: ZoneInfo = NEW_YORK) -> tuple[list[str], list[str]]:
    series = pd.Series(stamps)
    series.index = pd.RangeIndex(2, len(series) + 2, name="line")
    session, notes = to_sessions(series, zone, "nvda.csv")
    assert session.dtype == "datetime64[ns]"
    assert list(session.index) == list(series.index)
    return [f"{day:%Y-%m-%d}" for day in session], notes


def error_of(stamps: object, zone: ZoneInfo = NEW_YORK) -> str:
    with pytest.raises(BadInput) as caught:
        read(stamps, zone)
    assert str(caught.value).startswith("nvda.csv: the date of line ")
    return str(caught.value)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d 00:00:00", "%Y-%m-%dT00:00"]
)
def test_dates_are_read_as_they_stand(form: str) -> None:
    assert read(DAYS.strftime(form)) == ([f"{day:%Y-%m-%d}" for day in DAYS], [])


def test_dates_of_parquet_are_read_as_they_stand() -> None:
    expected = ["2023-03-09", "2023-03-10", "2023-03-13", "2023-11-06"]
    for stamps in (DAYS, DAYS.as_unit("us"), DAYS.date, DAYS.strftime("%Y%m%d").astype(int)):
        assert read(stamps) == (expected, [])


def test_times_without_a_zone_are_exchange_local_and_that_is_said() -> None:
    found, notes = read(["2023-03-09 16:00:00", "2023-03-10 16:00:00"])
    assert found == ["2023-03-09", "2023-03-10"]
    assert notes == ["time stamps have no zone: their dates were taken as the exchange's"]


@pytest.mark.parametrize(
    "moment", ["00:00", "09:30", "16:00", "17:59"], ids=["midnight", "open", "close", "late"]
)
def test_zoned_stamps_mean_the_date_on_the_exchange_clock(moment: str) -> None:
    # Winter time until 12 March 2023, summer time until 5 November.
    local = pd.DatetimeIndex([f"{day:%Y-%m-%d} {moment}" for day in DAYS]).tz_localize(NEW_YORK)
    for stamps in (
        local,
        local.tz_convert("UTC"),
        local.astype(str),
        local.tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%SZ"),
    ):
        found, notes = read(stamps)
        assert found == [f"{day:%Y-%m-%d}" for day in DAYS]
        assert notes == ["stamps were turned into dates of America/New_York (4)"]


def test_east_of_greenwich_the_utc_date_is_the_day_before() -> None:
    local = DAYS.tz_localize("Asia/Tokyo").tz_convert("UTC")
    assert local[0] == pd.Timestamp("2023-03-08 15:00", tz="UTC")
    assert read(local, ZoneInfo("Asia/Tokyo"))[0] == [f"{day:%Y-%m-%d}" for day in DAYS]


def test_midnight_utc_is_a_label() -> None:
    found, notes = read(["2023-03-09 00:00:00+00:00", "2023-07-10T00:00:00Z"])
    assert found == ["2023-03-09", "2023-07-10"]
    assert notes == ["stamps at midnight UTC were taken as dates (2)"]


def test_both_kinds_may_meet_in_a_file() -> None:
    found, notes = read(["2023-03-09 00:00:00+00:00", "2023-03-10 05:00:00+00:00"])
    assert found == ["2023-03-09", "2023-03-10"]
    assert len(notes) == 2


@given(st.lists(st.sampled_from(list(YEAR)), min_size=1, max_size=9, unique=True))
def test_labels_and_local_midnights_agree_all_year(days: list[pd.Timestamp]) -> None:
    index = pd.DatetimeIndex(days)
    label, _ = read(index.tz_localize("UTC"))
    local, _ = read(index.tz_localize(NEW_YORK).tz_convert("UTC"))
    assert label == local == [f"{day:%Y-%m-%d}" for day in days]


def test_an_evening_stamp_is_refused() -> None:
    # 01:00 UTC is 20:00 in New York: the session that ended, or the next one's label?
    error = error_of(["2023-03-09 05:00:00+00:00", "2023-03-11 01:00:00+00:00"])
    assert "line 3 (2023-03-11 01:00:00+00:00) is after 18:00 in America/New_York" in error
    assert "stamp each row with its session's date" in error


def test_coins_close_in_the_last_minute_of_the_day() -> None:
    found, _ = read(["2023-03-09T23:59:59.999Z", "2023-03-10T23:59:59.999Z"], UTC)
    assert found == ["2023-03-09", "2023-03-10"]


def test_zones_on_some_rows_only_are_refused() -> None:
    error = error_of(["2023-03-09 05:00:00+00:00", "2023-03-10 00:00:00"])
    assert "line 3 (2023-03-10 00:00:00) has no zone while others have; write all alike" in error


def test_intraday_bars_are_refused() -> None:
    error = error_of(["2023-03-09 09:30:00", "2023-03-09 10:30:00", "2023-03-10 09:30:00"])
    assert "line 2 (2023-03-09 09:30:00), line 3 (2023-03-09 10:30:00) shares its session" in error
    assert "combine them into one bar a session first" in error


def test_day_and_month_are_told_apart_or_refused() -> None:
    assert read(["03/09/2023", "03/13/2023"]) == (
        ["2023-03-09", "2023-03-13"],
        ["dates were read month first, the only order in which all are dates"],
    )
    assert read(["09/03/2023", "13/03/2023"])[0] == ["2023-03-09", "2023-03-13"]
    assert read(["03/03/2023"]) == (["2023-03-03"], [])
    assert "may be day or month first; write dates as YYYY-MM-DD" in error_of(
        ["03/09/2023", "03/10/2023"]
    )
    assert "is no date" in error_of(["03/13/2023", "13/03/2023"])


@pytest.mark.parametrize("odd", ["yesterday", "2023", "2023-03", "2023-02-30", "13/13/2023", "1.5"])
def test_what_is_no_date_is_named(odd: str) -> None:
    assert f"line 3 ({odd}) is no date; write it as YYYY-MM-DD" in error_of(["2023-03-09", odd])
    assert f"line 2 ({odd}) is no date" in error_of([odd])


@pytest.mark.parametrize("empty", ["", None, pd.NaT, float("nan")])
def test_an_empty_date_is_named(empty: object) -> None:
    assert "line 3 (" in error_of(["2023-03-09", empty])
    assert ") is empty" in error_of([empty, "2023-03-09"])
