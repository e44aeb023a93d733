"""The schedule over real calendars: each month once, when it is final, whatever the hour says."""

from __future__ import annotations

import time

import dagster as dg
import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets_tests.defs.ticks import Daemon, Ticked, keep, list_stocks

XNYS, COIN = "XNYS", {"symbol": "COIN", "calendar": "24/7"}


def test_it_runs_unless_it_is_turned_off(location: dg.Definitions) -> None:
    schedule = location.resolve_schedule_def("month_end")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "retrain_stock"


# The month's last bar, and the moment (UTC) at which the month becomes due six hours after the
# close: an hour earlier the month before is the latest.
MONTH_ENDS = {
    "on a weekend": (XNYS, "2023-09-29", "2023-09-30 02:00"),
    "with a holiday": (XNYS, "2024-03-28", "2024-03-29 02:00"),  # Good Friday
    "with half a day": (XNYS, "2024-11-29", "2024-11-30 00:00"),  # the day after Thanksgiving
    "in winter": (XNYS, "2023-12-29", "2023-12-30 03:00"),
    "of a coin": ("24/7", "2023-09-30", "2023-10-01 06:00"),
    "in Tokyo": ("XTKS", "2023-09-29", "2023-09-29 12:00"),
}


@pytest.mark.parametrize("name", MONTH_ENDS)
def test_a_month_is_asked_for_when_its_last_session_has_closed(
    home: Home, daemon: Daemon, name: str
) -> None:
    calendar, last, due = MONTH_ENDS[name]
    list_stocks(home, {"symbol": "AAA", "calendar": calendar})
    keep(home, "AAA", last, calendar=calendar)
    month, before = last[:7], str(pd.Period(last[:7], freq="M") - 1)
    assert daemon.schedule(pd.Timestamp(due) - pd.Timedelta(hours=1)).months == {"AAA": before}
    assert daemon.schedule(due).months == {"AAA": month}


def test_the_delay_is_in_hours_even_where_the_clocks_change(home: Home, daemon: Daemon) -> None:
    # From the close of Tuesday, 16:00 in New York, to Sunday 2023-11-05, when clocks are set back.
    list_stocks(home, "AAA", schedule={"delay_hours": 120})
    keep(home, "AAA", "2023-10-31")
    assert daemon.schedule("2023-11-05 19:00").months == {"AAA": "2023-09"}
    ticked = daemon.schedule("2023-11-05 20:00")
    assert ticked.months == {"AAA": "2023-10"}
    daemon.launch(ticked)
    # In the new zone's time from then on; and the other way round in spring.
    assert "next by XNYS: 2023-11, due 2023-12-05 16:00 EST" in said(daemon, "2023-11-05 20:00")
    assert "next by XNYS: 2024-03, due 2024-04-02 16:00 EDT" in said(daemon, "2024-03-10 07:00")


def said(daemon: Daemon, at: str | pd.Timestamp) -> str:
    ticked = daemon.schedule(at)
    assert ticked.requests == {}
    return ticked.message or ""


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Auckland"])
def test_a_tick_is_the_same_in_every_zone(
    home: Home, daemon: Daemon, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_stocks(home, "AAA", COIN, schedule={"delay_hours": 111})
    keep(home, "AAA", "2023-10-31")
    keep(home, "COIN", "2023-10-31", calendar="24/7")
    # Where New York's clocks are set back, half past one in either zone, and where months meet.
    moments = [
        pd.Timestamp(text, tz="UTC")
        for text in ("2023-11-05 05:30", "2023-11-05 06:30", "2023-10-01 05:59")
    ]
    expected = [daemon.schedule(moment) for moment in moments]
    try:
        with monkeypatch.context() as machine:
            machine.setenv("TZ", zone)
            time.tzset()
            there = [daemon.schedule(moment.tz_convert(zone)) for moment in moments]
    finally:
        time.tzset()
    assert there == expected
    assert all(set(ticked.months) == {"AAA", "COIN"} for ticked in expected)


def test_each_stock_goes_by_its_own_calendar(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA", COIN)
    keep(home, "AAA", "2023-09-29")
    keep(home, "COIN", "2023-09-30", calendar="24/7")
    assert daemon.schedule("2023-09-30 02:00").months == {"AAA": "2023-09", "COIN": "2023-08"}
    assert daemon.schedule("2023-10-01 06:00").months == {"AAA": "2023-09", "COIN": "2023-09"}


def test_a_request_is_for_the_whole_pipeline_of_one_partition(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA")
    stored = keep(home, "AAA", "2023-09-29")
    request = daemon.schedule("2023-10-02").requests["AAA"]
    assert request.asset_selection is None
    assert request.run_config == {}
    assert request.run_key == "AAA@2023-09"
    assert request.tags == {
        "dagster/partition": "2023-09|AAA",
        "dagster/partition/month": "2023-09",
        "dagster/partition/stock": "AAA",
        "dagster/schedule_name": "month_end",
        "retrain/bars": stored,
        "retrain/final": "2023-09",
    }
    assert daemon.instance.has_dynamic_partition("stock", "AAA")


@pytest.mark.parametrize("status", ["STARTED", "FAILURE", "CANCELED"])
def test_a_month_is_asked_for_once_whatever_became_of_it(
    home: Home, daemon: Daemon, status: str
) -> None:
    list_stocks(home, "AAA", "BBB")
    keep(home, "AAA", "2023-09-29")
    first = daemon.schedule("2023-10-02 05:00")
    assert daemon.schedule("2023-10-02 05:00") == first  # as in the pages: nothing was launched
    daemon.launch(first, dg.DagsterRunStatus[status])
    for at in ("2023-10-02 05:00", "2023-10-31 22:00", "2023-09-30 02:00"):
        assert said(daemon, at).startswith("2023-09 was asked for: AAA; next by XNYS: 2023-10")
    # One that joins later is asked for alone.
    keep(home, "BBB", "2023-09-29")
    assert daemon.schedule("2023-10-02 07:00").months == {"BBB": "2023-09"}


def test_a_provisional_run_is_not_the_final_one(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA")
    keep(home, "AAA", "2023-09-29")
    (request,) = daemon.schedule("2023-10-02").requests.values()
    provisional = {key: value for key, value in request.tags.items() if key != "retrain/final"}
    daemon.launch(Ticked({"AAA": request._replace(tags=provisional)}, None))
    assert daemon.schedule("2023-10-02").months == {"AAA": "2023-09"}


def test_after_two_months_without_a_daemon_the_last_month_is_asked_for(
    home: Home, daemon: Daemon
) -> None:
    list_stocks(home, "AAA")
    keep(home, "AAA", "2023-07-31")
    daemon.launch(daemon.schedule("2023-08-01 02:00"))
    keep(home, "AAA", "2023-10-31")
    ticked = daemon.schedule("2023-11-03 17:00")
    assert ticked.months == {"AAA": "2023-10"}
    daemon.launch(ticked)
    assert "2023-10 was asked for" in said(daemon, "2023-11-03 18:00")


def test_bars_that_come_late_are_waited_for(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA", "BBB")
    keep(home, "AAA", "2023-09-28")
    keep(home, "BBB", "2023-10-04")  # a later bar shows that the month is over
    ticked = daemon.schedule("2023-10-05")
    assert ticked.months == {"BBB": "2023-09"}
    daemon.launch(ticked)
    assert "2023-09 is due and waits for the bar of 2023-09-29" in said(daemon, "2023-10-05 01:00")
    keep(home, "AAA", "2023-09-29")
    assert daemon.schedule("2023-10-17 11:00").months == {"AAA": "2023-09"}


def test_bars_that_ended_years_ago_lead_to_an_explanation(home: Home, daemon: Daemon) -> None:
    symbols = [f"S{number}" for number in range(8)]
    list_stocks(home, *symbols)
    for symbol in symbols:
        keep(home, symbol, "2023-09-21")
    assert said(daemon, "2026-11-20 12:00") == (
        "2026-10 is due and waits for the bar of 2026-10-30 (import newer bars, or have them "
        "fetched with `operation.feed`): S0, S1, S2, S3, S4, S5 and 2 more; "
        "next by XNYS: 2026-11, due 2026-11-30 22:00 EST"
    )


def test_quarters_alone_are_asked_for_on_request(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA", schedule={"every": "quarter"})
    keep(home, "AAA", "2023-11-10")
    ticked = daemon.schedule("2023-11-13")
    assert ticked.months == {"AAA": "2023-09"}
    daemon.launch(ticked)
    assert "next by XNYS: 2023-12, due 2023-12-29 22:00 EST" in said(daemon, "2023-12-29")
    # An edit takes effect at the next tick.
    bars = home.universe.read_text()
    home.universe.write_text(bars.replace("quarter", "month"))
    assert daemon.schedule("2023-11-13").months == {"AAA": "2023-10"}


def test_a_month_that_has_not_ended_is_never_asked_for(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA")
    keep(home, "AAA", "2023-09-29")  # at the time of the tick, bars of the future
    assert daemon.schedule("2023-07-05").months == {"AAA": "2023-06"}


def test_who_is_left_out_is_named(home: Home, daemon: Daemon) -> None:
    list_stocks(
        home,
        {"symbol": "AAA", "active": False},
        {"symbol": "BBB", "calendar": "XNOWHERE"},
        {"symbol": "LONG", "overrides": {"prediction_length": 40}},
        "SHORT",
        "LATE",
        "GAP",
        "NONE",
    )
    for symbol in ("AAA", "BBB", "LONG"):
        keep(home, symbol, "2023-09-29", count=360)
    keep(home, "SHORT", "2023-09-29", count=315)
    keep(home, "LATE", "2023-10-03", count=317)  # one of October's too many
    keep(home, "GAP", "2023-10-02", count=1)
    (home.market / "TORN.parquet").write_bytes(b"PAR1 torn")
    message = said(daemon, "2023-10-05")
    for told in (
        "not active: AAA",
        "'XNOWHERE' is no known calendar",
        "fewer than the 374 bars that are needed: LONG",
        "fewer than the 316 bars that are needed: LATE, SHORT",
        "no bar in 2023-09: GAP",
        "TORN.parquet is no readable Parquet file",
    ):
        assert told in message
    assert "NONE" not in message
    keep(home, "SHORT", "2023-09-29", count=316)
    assert daemon.schedule("2023-10-05").months == {"SHORT": "2023-09"}


def test_months_before_the_first_are_left_alone(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA")
    keep(home, "AAA", "2023-09-29")
    edited = home.universe.read_text().replace("2015-01", "2023-10")
    home.universe.write_text(edited)
    assert "2023-09 lies before 2023-10, the first month: AAA" in said(daemon, "2023-10-05")


def test_without_bars_there_is_nothing_to_ask_for(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA")
    assert said(daemon, "2023-10-05") == "no bars are stored: import some (`retrain import FILE`)"


def test_a_broken_universe_fails_the_tick_with_its_words(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA", schedule={"every": "week"})
    with pytest.raises(Exception) as told:  # noqa: PT011  (Dagster's own wrapper, or ours)
        daemon.schedule("2023-10-05")
    assert isinstance(told.value.__cause__ or told.value, BadInput)
    assert "operation.schedule.every" in str(told.value.__cause__ or told.value)
