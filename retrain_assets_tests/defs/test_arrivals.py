"""New bars: one request for each state of a stock's bars, whatever happens in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pydantic import ValidationError

from retrain_assets.defs.arrivals import Cursor
from retrain_assets.home import Home
from retrain_assets_tests.defs.ticks import Daemon, Ticked, bars_to, keep, list_stocks

STARTED, QUEUED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED


def noted(ticked: Ticked) -> dict[str, str]:
    """Short hashes in a cursor, by symbol."""
    return json.loads(ticked.cursor or "")["bars"]


@pytest.fixture
def two(home: Home, daemon: Daemon) -> Ticked:
    """The first look at AAA and BBB, whose bars end on 2023-09-21."""
    list_stocks(home, "AAA", "BBB", inbox={"quiet_seconds": 0})
    keep(home, "AAA", "2023-09-21")
    keep(home, "BBB", "2023-09-21")
    return daemon.sensor()


def drop(home: Home, name: str, bars: pd.DataFrame, **columns: Any) -> Path:
    """Put a price file into the inbox."""
    home.inbox.mkdir(exist_ok=True)
    bars.assign(**columns).to_csv(home.inbox / name, index=False)
    return home.inbox / name


def test_it_runs_unless_it_is_turned_off(location: dg.Definitions) -> None:
    sensor = location.resolve_sensor_def("new_bars")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30


def test_the_first_look_takes_note_and_asks_for_nothing(daemon: Daemon, two: Ticked) -> None:
    assert two.requests == {}
    assert two.message == (
        "first look: 2 stocks are stored, and nothing is asked for them; no new bars"
    )
    assert two.added == ["AAA", "BBB"]
    assert set(noted(two)) == {"AAA", "BBB"}
    again = daemon.sensor(two.cursor)
    assert (again.requests, again.message, again.cursor) == ({}, "no new bars", two.cursor)


def test_appended_bars_are_asked_for_once(home: Home, daemon: Daemon, two: Ticked) -> None:
    stored = keep(home, "AAA", "2023-09-22")
    ticked = daemon.sensor(two.cursor)
    (request,) = ticked.requests.values()
    assert request.run_key == f"AAA@{stored}"
    assert request.run_config == {}
    assert request.asset_selection is None
    assert request.tags == {
        "dagster/partition": "2023-09|AAA",
        "dagster/partition/month": "2023-09",
        "dagster/partition/stock": "AAA",
        "dagster/sensor_name": "new_bars",
        "retrain/bars": stored,
    }
    assert noted(ticked) == noted(two) | {"AAA": stored}
    # From there on, as after a restart: the cursor is all that is kept.
    assert daemon.sensor(ticked.cursor).requests == {}
    # Touched, or written with the same bars: the same hash.
    keep(home, "AAA", "2023-09-22")
    (home.market / "AAA.parquet").touch()
    assert daemon.sensor(ticked.cursor).requests == {}


def test_a_correction_of_old_bars_counts_as_new(home: Home, daemon: Daemon, two: Ticked) -> None:
    keep(home, "AAA", "2023-09-21", level=99.0)
    assert daemon.sensor(two.cursor).months == {"AAA": "2023-09"}


def test_the_last_bar_of_a_month_makes_it_final(home: Home, daemon: Daemon, two: Ticked) -> None:
    keep(home, "AAA", "2023-09-29")
    ticked = daemon.sensor(two.cursor)
    assert ticked.requests["AAA"].tags["retrain/final"] == "2023-09"
    daemon.launch(ticked)
    assert "2023-09 was asked for: AAA" in (daemon.schedule("2023-10-02").message or "")


def test_a_new_symbol_becomes_a_partition_with_its_run(
    home: Home, daemon: Daemon, two: Ticked
) -> None:
    stored = keep(home, "NEW", "2023-10-03")  # not in universe.yaml
    ticked = daemon.sensor(two.cursor)
    assert ticked.added == ["NEW"]
    assert ticked.months == {"NEW": "2023-10"}
    assert ticked.requests["NEW"].run_key == f"NEW@{stored}"


@pytest.mark.parametrize("status", [QUEUED, STARTED])
def test_while_a_partition_is_retrained_its_new_bars_wait(
    home: Home, daemon: Daemon, two: Ticked, status: dg.DagsterRunStatus
) -> None:
    keep(home, "AAA", "2023-09-22")
    first = daemon.sensor(two.cursor)
    (run,) = daemon.launch(first, status)
    keep(home, "AAA", "2023-09-25")
    keep(home, "BBB", "2023-09-25")
    second = daemon.sensor(first.cursor)
    assert second.months == {"BBB": "2023-09"}
    assert noted(second)["AAA"] == noted(first)["AAA"]
    stored = keep(home, "AAA", "2023-09-26")
    third = daemon.sensor(second.cursor)
    assert third.message == "2023-09 is being retrained, so its new bars wait: AAA"
    daemon.instance.report_run_failed(run)
    assert daemon.sensor(third.cursor).requests["AAA"].run_key == f"AAA@{stored}"


def test_a_run_of_another_month_is_no_reason_to_wait(
    home: Home, daemon: Daemon, two: Ticked
) -> None:
    keep(home, "AAA", "2023-09-29")
    first = daemon.sensor(two.cursor)
    daemon.launch(first, STARTED)
    keep(home, "AAA", "2023-10-02")
    assert daemon.sensor(first.cursor).months == {"AAA": "2023-10"}


MALFORMED = {
    "no JSON": "AAA@1234",
    "another version": '{"version": 2, "bars": {}, "waiting": {}}',
    "a list": "[1, 2]",
    "a number for a hash": '{"version": 1, "bars": {"AAA": 7}, "waiting": {}}',
    "text for a state": '{"version": 1, "bars": {}, "waiting": {"x.csv": "soon"}}',
    "nothing in it": "{}",
    "something else in it": '{"version": 1, "bars": {}, "more": 1}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_cursor_is_told_from_one(name: str) -> None:
    with pytest.raises(ValidationError):
        Cursor.model_validate_json(MALFORMED[name])
    own = Cursor(bars={"AAA": "0" * 12}, waiting={"x.csv": [1, 2, 3]})
    assert Cursor.model_validate_json(own.model_dump_json()) == own


@pytest.mark.parametrize("name", ["no JSON", "another version"])
def test_a_malformed_cursor_is_made_anew_from_the_runs(
    home: Home, daemon: Daemon, two: Ticked, name: str
) -> None:
    keep(home, "AAA", "2023-09-22")
    keep(home, "BBB", "2023-09-22")
    ticked = daemon.sensor(two.cursor)
    daemon.launch(ticked)
    # Since then AAA has new bars; of NEW no run knows.
    stored = keep(home, "AAA", "2023-09-25")
    keep(home, "NEW", "2023-09-25")
    healed = daemon.sensor(MALFORMED[name])
    assert set(healed.requests) == {"AAA"}
    assert noted(healed)["AAA"] == stored
    assert noted(healed)["BBB"] == noted(ticked)["BBB"]
    assert daemon.sensor(healed.cursor).message == "no new bars"


def test_the_newest_run_tells_what_was_asked_for(home: Home, daemon: Daemon, two: Ticked) -> None:
    keep(home, "AAA", "2023-09-22")
    daemon.launch(daemon.sensor(two.cursor))
    keep(home, "AAA", "2023-09-25")
    daemon.launch(daemon.sensor(two.cursor))
    # A run that was started by hand says nothing of bars.
    tags = {"dagster/partition": "2023-09|AAA", "dagster/partition/stock": "AAA"}
    daemon.instance.add_run(dg.DagsterRun("retrain_stock", tags=tags))
    assert daemon.sensor("lost").requests == {}


def test_who_is_left_out_is_named_and_not_looked_at_again(
    home: Home, daemon: Daemon, two: Ticked
) -> None:
    ahead = pd.Timestamp.now("UTC").tz_localize(None).normalize() + pd.DateOffset(months=2)
    list_stocks(
        home,
        {"symbol": "AAA", "active": False},
        {"symbol": "BBB", "calendar": "XNOWHERE"},
        "SHORT",
        "EARLY",
        "AHEAD",
    )
    keep(home, "AAA", "2023-09-22")
    keep(home, "BBB", "2023-09-22")
    keep(home, "SHORT", "2023-09-22", count=315)
    keep(home, "EARLY", "2014-12-30")
    keep(home, "AHEAD", f"{ahead:%Y-%m-%d}")
    (home.market / "TORN.parquet").write_bytes(b"PAR1 torn")
    keep(home, "GOOD", "2023-09-22")
    ticked = daemon.sensor(two.cursor)
    assert ticked.months == {"GOOD": "2023-09"}  # one bad file stops nobody
    assert set(noted(ticked)) == {"AAA", "BBB", "SHORT", "EARLY", "AHEAD", "GOOD"}
    (home.market / "GOOD.parquet").unlink()  # so that there is a message
    message = daemon.sensor('{"version": 1, "bars": {}}').message or ""
    for told in (
        "new bars, but not active: AAA",
        "'XNOWHERE' is no known calendar",
        "fewer than the 316 bars that are needed: SHORT",
        "2014-12 lies before 2015-01, the first month: EARLY",
        "lies in the future: is the clock of this machine right?: AHEAD",
        "TORN.parquet is no readable Parquet file",
    ):
        assert told in message


def test_what_is_gone_for_a_while_is_not_new_when_it_is_back(
    home: Home, daemon: Daemon, two: Ticked
) -> None:
    kept = (home.market / "AAA.parquet").read_bytes()
    (home.market / "AAA.parquet").unlink()
    without = daemon.sensor(two.cursor)
    assert noted(without) == noted(two)
    (home.market / "AAA.parquet").write_bytes(b"")
    torn = daemon.sensor(without.cursor)
    (home.market / "AAA.parquet").write_bytes(kept)
    assert daemon.sensor(torn.cursor).message == "no new bars"


def test_files_in_the_inbox_are_taken_in_and_asked_for(
    home: Home, daemon: Daemon, two: Ticked
) -> None:
    drop(home, "AAA.csv", bars_to("2023-09-25"))
    drop(home, "prices.csv", bars_to("2023-09-25"), symbol="NEW")
    ticked = daemon.sensor(two.cursor)
    assert ticked.months == {"AAA": "2023-09", "NEW": "2023-09"}
    assert ticked.added == ["NEW"]
    assert {file.name for file in (home.inbox / "imported").iterdir()} == {"AAA.csv", "prices.csv"}
    assert daemon.sensor(ticked.cursor).message == "no new bars"


def test_files_that_may_still_be_written_wait(home: Home, daemon: Daemon, two: Ticked) -> None:
    settings = home.universe.read_text()
    home.universe.write_text(settings.replace("quiet_seconds: 0", "quiet_seconds: 3600"))
    drop(home, "AAA.csv", bars_to("2023-09-25"))
    first = daemon.sensor(two.cursor)
    assert first.message == "not taken from the inbox yet: AAA.csv; no new bars"
    assert list(json.loads(first.cursor or "")["waiting"]) == ["AAA.csv"]
    odd = Path(os.fsdecode(os.fsencode(home.inbox) + b"/\xff.csv"))  # a name that is no text
    odd.write_text("x")
    assert len(json.loads(daemon.sensor(first.cursor).cursor or "")["waiting"]) == 2
    odd.unlink()
    home.universe.write_text(settings)
    ticked = daemon.sensor(first.cursor)
    assert ticked.months == {"AAA": "2023-09"}
    assert json.loads(ticked.cursor or "")["waiting"] == {}


def test_what_the_inbox_brings_on_the_first_look_is_new(home: Home, daemon: Daemon) -> None:
    list_stocks(home, "AAA", "BBB", inbox={"quiet_seconds": 0})
    keep(home, "AAA", "2023-09-21")
    keep(home, "BBB", "2023-09-21")
    drop(home, "AAA.csv", bars_to("2023-09-25"))
    assert daemon.sensor().months == {"AAA": "2023-09"}


def test_a_path_for_a_symbol_is_refused_with_a_report(
    home: Home, daemon: Daemon, two: Ticked, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(home, "bad.csv", bars_to("2023-09-25"), symbol="../../etc")
    drop(home, "AAA.csv", bars_to("2023-09-25"))
    before = sorted(home.root.parent.rglob("etc*"))
    assert daemon.sensor(two.cursor).months == {"AAA": "2023-09"}
    assert (home.inbox / "quarantine" / "bad.csv").is_file()
    (report,) = (home.inbox / "quarantine").glob("*.report.txt")
    assert "'../../ETC' is no usable symbol" in report.read_text()
    assert f"see {report}" in capsys.readouterr().err
    assert sorted(home.root.parent.rglob("etc*")) == before
    assert {file.stem for file in home.market.glob("*.parquet")} == {"AAA", "BBB"}
