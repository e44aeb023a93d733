"""Fetching under Dagster: what the sensor asks for and when, what a run of the job comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from retrain_assets import cli
from retrain_assets.defs import fetching
from retrain_assets.defs.fetching import FETCH_BARS, FETCH_TAG, fetch_bars, fetch_bars_when_due
from retrain_assets.defs.requests import BARS_TAG, FINAL_TAG, PARTITION_TAG, unfinished
from retrain_assets.defs.resources import Reports
from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets.market import feeds as package
from retrain_assets.market.bars import BarStore
from retrain_assets.market.feeds import Instrument
from retrain_assets.market.fetching import Due
from retrain_assets_tests.defs.ticks import ENOUGH, bars_to, list_stocks
from retrain_assets_tests.market.test_fetching import Made

FEED = {"source": "yahoo", "delay_hours": 2}
# Friday; New York closes at 20:00 UTC.
FRIDAY = "2023-09-22"
EVENING = pd.Timestamp("2023-09-22 22:00", tz="UTC")


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A data folder with two stocks that have bars to Thursday, and one that is not active."""
    home = Home(tmp_path / "data")
    home.market.mkdir(parents=True)
    monkeypatch.setenv("RETRAIN_HOME", str(home.root))
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    list_stocks(home, "AAA", "BBB", {"symbol": "OLD", "active": False}, feed=FEED)
    for symbol in ("AAA", "BBB", "OLD"):
        BarStore(home.market).write(symbol, bars_to(FRIDAY).iloc[:-1], source="made")
    return home


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Made:
    """A feed that stands in for Yahoo, and an evening on which Friday's bars are there."""
    whole = bars_to(FRIDAY)
    found = Made({"AAA": whole, "BBB": whole, "OLD": whole})
    monkeypatch.setattr(package, "feeds", lambda: {"yahoo": found})
    monkeypatch.setattr(pd.Timestamp, "now", lambda *_: EVENING)
    return found


def resources(home: Home) -> dict[str, Any]:
    return {"reports": Reports(root=str(home.results), home=str(home.root))}


def tick(
    home: Home,
    instance: dg.DagsterInstance,
    now: pd.Timestamp = EVENING,
    cursor: str | None = None,
) -> tuple[dg.RunRequest | None, str | None, str | None]:
    """What the sensor asks for at a moment; its message; its cursor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "_now", lambda: now)
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources=resources(home)
        )
        data = fetch_bars_when_due.evaluate_tick(context)
    requests = data.run_requests or []
    assert len(requests) <= 1
    return (requests[0] if requests else None), data.skip_message, data.cursor or cursor


def asked(request: dg.RunRequest | None) -> list[str]:
    """The stocks of a request."""
    assert request is not None
    config = request.run_config["ops"]["fetch_missing_bars"]["config"]
    return list(config["stocks"])


def test_both_are_in_the_code_location_and_the_sensor_is_on(placed: Home) -> None:
    from retrain_assets.definitions import build_definitions

    defs = build_definitions(placed)
    assert defs.resolve_job_def(FETCH_BARS).description
    sensor = defs.resolve_sensor_def("fetch_bars_when_due")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 600
    assert len(sensor.description or "") > 40


def test_without_a_feed_nothing_is_fetched(placed: Home, instance: dg.DagsterInstance) -> None:
    list_stocks(placed, "AAA")
    request, message, _ = tick(placed, instance)
    assert request is None
    assert message is not None
    assert message.startswith("no feed is configured, so nothing is fetched: name one in univer")


def test_stocks_are_asked_for_when_their_session_has_closed(
    placed: Home, instance: dg.DagsterInstance
) -> None:
    early, message, _ = tick(placed, instance, EVENING - pd.Timedelta(minutes=1))
    assert early is None
    assert message == "the last closed session of every active stock is stored"
    request, _, _ = tick(placed, instance)
    assert request is not None
    assert asked(request) == ["AAA", "BBB"]
    # Nothing by which it could be taken for a run that retrains.
    assert request.tags[FETCH_TAG] == "yahoo"
    assert not {PARTITION_TAG, BARS_TAG, FINAL_TAG} & set(request.tags)


def test_a_try_is_asked_for_once(placed: Home, instance: dg.DagsterInstance) -> None:
    request, _, cursor = tick(placed, instance)
    half_an_hour = EVENING + pd.Timedelta(minutes=30)
    again, message, kept = tick(placed, instance, half_an_hour, cursor)
    assert (again, kept) == (None, cursor)
    assert message == "asked for, and to be tried again later: AAA, BBB"
    # A cursor that is lost or spoilt asks with the same key, which Dagster takes once.
    for lost in (None, "spoilt", '{"AAA": 3}', "[]"):
        same, _, _ = tick(placed, instance, half_an_hour, lost)
        assert same is not None
        assert request is not None
        assert same.run_key == request.run_key


def test_what_a_try_does_not_bring_is_asked_for_again(
    placed: Home, instance: dg.DagsterInstance
) -> None:
    first, _, cursor = tick(placed, instance)
    BarStore(placed.market).write("AAA", bars_to(FRIDAY), source="made")
    second, _, cursor = tick(placed, instance, EVENING + pd.Timedelta(hours=1), cursor)
    assert asked(second) == ["BBB"]
    assert first is not None
    assert second is not None
    assert first.run_key != second.run_key


def tries(hours: range, stored: str) -> list[int]:
    """Hours after a session became due at which another try begins."""
    friday = pd.Timestamp(FRIDAY)
    each = Due(Instrument("AAA"), friday, pd.Timestamp(stored), friday)
    since = each.since(delay_hours=2)
    names = [fetching._attempt(each, 2, since + pd.Timedelta(hours=hour)) for hour in hours]
    return [
        hour
        for hour, name, before in zip(hours[1:], names[1:], names, strict=False)
        if name != before
    ]


def test_tries_become_fewer_with_time() -> None:
    assert tries(range(72), "2023-09-21") == [1, 2, 3, 4, 5, *range(6, 72, 6)]
    # A stock that is traded no longer: once a day.
    assert tries(range(14 * 24, 17 * 24), "2023-06-30") == [15 * 24, 16 * 24]


def test_a_new_symbol_is_asked_for_at_once(placed: Home, instance: dg.DagsterInstance) -> None:
    _, _, cursor = tick(placed, instance)
    content = placed.universe.read_text("utf-8").replace("- symbol: BBB", "- symbol: NEW")
    placed.universe.write_text(content, encoding="utf-8")
    request, _, _ = tick(placed, instance, EVENING + pd.Timedelta(minutes=10), cursor)
    assert asked(request) == ["NEW"]


@pytest.mark.parametrize(
    ("status", "waits"),
    [("STARTING", True), ("STARTED", True), ("SUCCESS", False), ("FAILURE", False)],
)
def test_nothing_is_asked_for_while_bars_are_being_fetched(
    placed: Home, instance: dg.DagsterInstance, status: str, waits: bool
) -> None:
    instance.add_run(dg.DagsterRun(FETCH_BARS, status=dg.DagsterRunStatus[status]))
    request, message, _ = tick(placed, instance)
    assert (request is None) == waits
    assert not waits or message == "bars are being fetched, the next look comes after that"
    assert unfinished(instance) == set()


def test_a_stock_that_cannot_be_looked_at_is_told(
    placed: Home, instance: dg.DagsterInstance
) -> None:
    list_stocks(placed, {"symbol": "AAA", "calendar": "NOWHERE"}, feed=FEED)
    request, message, _ = tick(placed, instance)
    assert request is None
    assert message == "cannot be looked at: AAA"


def run(home: Home, instance: dg.DagsterInstance, *stocks: str) -> dg.ExecuteInProcessResult:
    return fetch_bars.execute_in_process(
        instance=instance,
        resources=resources(home),
        run_config={"ops": {"fetch_missing_bars": {"config": {"stocks": list(stocks)}}}},
        raise_on_error=False,
    )


def outputs(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Metadata of the run's output."""
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_a_run_drops_the_bars_of_all_that_are_due(
    placed: Home, instance: dg.DagsterInstance, vendor: Made
) -> None:
    result = run(placed, instance)
    assert result.success
    assert [name for name, *_ in vendor.asked] == ["AAA", "BBB"]
    assert sorted(p.name for p in placed.inbox.iterdir()) == ["AAA.made.csv", "BBB.made.csv"]
    told = outputs(result)
    assert (told["feed"], told["fetched"], told["failed"]) == ("Made up", 2, 0)
    assert told["stocks"].records[0].data == {
        "stock": "AAA",
        "result": "fetched",
        "what": "AAA: 11 bars to 2023-09-22",
    }


def test_a_run_looks_only_at_the_stocks_it_is_given(
    placed: Home, instance: dg.DagsterInstance, vendor: Made
) -> None:
    assert run(placed, instance, "BBB").success
    assert [name for name, *_ in vendor.asked] == ["BBB"]


def test_one_stock_s_failure_is_a_warning_and_in_the_metadata(
    placed: Home, instance: dg.DagsterInstance, vendor: Made
) -> None:
    vendor.errors["AAA"] = BadInput("the vendor knows no AAA")
    result = run(placed, instance)
    assert result.success
    told = outputs(result)
    assert (told["fetched"], told["failed"]) == (1, 1)
    assert told["stocks"].records[0].data["what"] == "the vendor knows no AAA"
    assert [p.name for p in placed.inbox.iterdir()] == ["BBB.made.csv"]


def test_a_run_in_which_all_fail_fails(
    placed: Home, instance: dg.DagsterInstance, vendor: Made
) -> None:
    vendor.errors.update(dict.fromkeys(("AAA", "BBB"), BadInput("no such thing")))
    result = run(placed, instance)
    assert not result.success
    (failure,) = (
        result.get_step_failure_events()
        if hasattr(result, "get_step_failure_events")
        else [e for e in result.all_events if e.is_step_failure]
    )
    assert "could not be fetched: AAA, BBB" in str(failure.step_failure_data.user_failure_data)


def test_a_run_with_nothing_due_succeeds(
    placed: Home, instance: dg.DagsterInstance, vendor: Made
) -> None:
    for symbol in ("AAA", "BBB"):
        BarStore(placed.market).write(symbol, vendor.bars[symbol], source="made")
    result = run(placed, instance)
    assert result.success
    assert outputs(result)["fetched"] == 0


@pytest.fixture
def retrain(placed: Home, vendor: Made, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command line as the entry point does; returns the exit code and what it printed."""

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["fetch", *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((out + err).split())

    return call


def test_by_hand_bars_are_fetched_and_taken_in_at_once(
    placed: Home, vendor: Made, retrain: Any
) -> None:
    placed.inbox.mkdir()
    (placed.inbox / "half.csv").write_text("session,op")
    code, told = retrain()
    assert code == 0
    assert f"AAA: {ENOUGH} bars" in told
    assert "(1 new, 0 changed) from AAA.made.csv" in told
    store = BarStore(placed.market)
    assert store.read("BBB").equals(vendor.bars["BBB"])
    assert f"{store.stored('OLD').last:%Y-%m-%d}" == "2023-09-21"
    # Somebody may be writing that one: it is left to the sensor.
    assert (placed.inbox / "half.csv").exists()
    assert retrain() == (0, "nothing to fetch: the last closed session of every stock is stored")


def test_by_hand_stocks_can_be_named(placed: Home, vendor: Made, retrain: Any) -> None:
    assert retrain("--stocks", "OLD")[0] == 0
    assert [name for name, *_ in vendor.asked] == ["OLD"]
    code, told = retrain("--stocks", "NOPE")
    assert code == 2
    assert "NOPE is not in the universe and has no bars" in told


def test_by_hand_failures_are_told_and_end_with_1(placed: Home, vendor: Made, retrain: Any) -> None:
    vendor.errors["AAA"] = BadInput("the vendor knows no AAA")
    vendor.bars["BBB"] = bars_to(FRIDAY).assign(high=1.0)
    code, told = retrain()
    assert code == 1
    assert "AAA: the vendor knows no AAA" in told
    assert "BBB.made.csv: BBB: refused" in told
    assert "see " in told
    assert (placed.inbox / "quarantine" / "BBB.made.csv.report.txt").exists()


def test_by_hand_a_feed_must_be_configured(placed: Home, retrain: Any) -> None:
    list_stocks(placed, "AAA")
    code, told = retrain()
    assert code == 2
    assert "no feed is configured" in told


def test_the_cursor_holds_what_is_due_and_no_more(
    placed: Home, instance: dg.DagsterInstance
) -> None:
    _, _, cursor = tick(placed, instance)
    assert json.loads(cursor or "") == dict.fromkeys(("AAA", "BBB"), "2023-09-22, try of hour 0")
