"""What starts by itself, and that it does not until it is told to."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._utils.tags import TagConcurrencyLimitsCounter

from retrain_assets.definitions import build_definitions
from retrain_assets.defs.partitions import month_stock, partition_key, register_stocks
from retrain_assets.defs.regression_report import JSON_FILE
from retrain_assets.files import write_json
from retrain_assets.home import Home
from retrain_assets_tests.defs.ticks import Daemon, Ticked

MONTH = "2023-08"


def advice(symbol: str, action: str, family: str = "kronos", rung: str | None = None) -> Any:
    ops = {f"{family}_refined": {"config": {"rungs": 1}}}
    return {
        "symbol": symbol,
        "family": family,
        "action": action,
        "rung": rung,
        "run_config": {"ops": ops} if action == "refine" else {},
    }


def asked(home: Home, *rows: Any) -> tuple[list[dg.RunRequest], str | None]:
    """What the sensor asks for after a report with these recommendations."""
    defs = build_definitions(home)
    sensor = defs.resolve_sensor_def("escalation")
    write_json(home.results / "regression" / MONTH / JSON_FILE, {"recommendations": list(rows)})
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization("regression_report", partition=MONTH)
        )
        register_stocks(instance, ["AAA", "BBB"])
        context = dg.build_sensor_context(
            instance=instance,
            instance_ref=instance.get_ref(),
            repository_def=defs.get_repository_def(),
            resources={"reports": (defs.resources or {})["reports"]},
        )
        ticked = sensor.evaluate_tick(context)
    return list(ticked.run_requests or []), ticked.skip_message


def test_the_sensor_is_off_until_it_is_turned_on(template: Any) -> None:
    sensor = build_definitions(Home(template)).resolve_sensor_def("escalation")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_each_rung_that_is_recommended_is_asked_for_once(home: Home) -> None:
    rows = [
        advice("AAA", "refine", rung="loss_mse"),
        advice("BBB", "analyze"),
        advice("BBB", "refine", family="toto", rung="rank_16"),
    ]
    requests, _ = asked(home, *rows)
    keys = [request.run_key for request in requests]
    assert keys == ["2023-08|AAA|kronos|loss_mse", "2023-08|BBB|toto|rank_16"]
    assert requests[0].partition_key == "2023-08|AAA"
    assert requests[0].run_config == rows[0]["run_config"]
    selected = {key.to_user_string() for key in requests[1].asset_selection or []}
    assert selected == {"toto_refined", "comparison", "champion"}


@pytest.mark.parametrize("action", ["run", "analyze", "none"])
def test_nothing_else_starts_anything(home: Home, action: str) -> None:
    requests, told = asked(home, advice("AAA", action))
    assert requests == []
    assert told == "the report of 2023-08 has nothing to refine"


def test_every_sensor_shows_whether_it_runs(location: dg.Definitions) -> None:
    sensors = location.get_repository_def().sensor_defs
    running = {s.name for s in sensors if s.default_status == dg.DefaultSensorStatus.RUNNING}
    assert {"new_bars", "summaries"} <= running
    assert not {"escalation", "drift_refinement"} & running
    # Nothing is left for Dagster's own sensor, which would be off.
    assert "default_automation_condition_sensor" not in {sensor.name for sensor in sensors}


def test_runs_of_one_partition_take_turns(daemon: Daemon) -> None:
    queue = daemon.instance.get_concurrency_config().run_queue_config
    assert queue is not None
    runs = {
        symbol: dg.DagsterRun(
            "retrain_stock",
            tags=dict(month_stock.get_tags_for_partition_key(partition_key(MONTH, symbol))),
        )
        for symbol in ("AAA", "BBB")
    }
    going_on = TagConcurrencyLimitsCounter(queue.tag_concurrency_limits, [runs["AAA"]])
    assert going_on.is_blocked(runs["AAA"])
    assert not going_on.is_blocked(runs["BBB"])


def scored(
    daemon: Daemon, home: Home, month: str, symbol: str, *, drifted: bool, **fields: Any
) -> None:
    """Write a live record, and tell the instance."""
    record = {
        "month": month,
        "symbol": symbol,
        "in_production": "kronos",
        "version": "0123456789abcdef",
        "drift": {"drifted": drifted, "p_value": 0.01, "reason": "made"},
    }
    write_json(home.results / "live" / month / f"{symbol}.json", record | fields)
    daemon.instance.report_runless_asset_event(
        dg.AssetMaterialization("live_performance", partition=partition_key(month, symbol))
    )


@pytest.fixture
def drifting(home: Home, daemon: Daemon) -> Ticked:
    """The first look at live records: of AAA in two months, and of BBB."""
    register_stocks(daemon.instance, ["AAA", "BBB", "CCC"])
    scored(daemon, home, "2023-07", "AAA", drifted=True)
    scored(daemon, home, "2023-08", "AAA", drifted=True)
    scored(daemon, home, "2023-08", "BBB", drifted=False)
    return daemon.sensor(name="drift_refinement")


def test_what_has_drifted_is_refined_from_its_latest_month_on(drifting: Ticked) -> None:
    (request,) = drifting.requests.values()
    assert request.run_key == "2023-08|AAA|0123456789abcdef|drift"
    assert request.partition_key == "2023-08|AAA"
    assert request.run_config == {"ops": {"kronos_refined": {"config": {"rungs": 1}}}}
    selected = {key.to_user_string() for key in request.asset_selection or []}
    assert selected == {"kronos_refined", "comparison", "champion"}
    assert request.tags["retrain/drifted"] == "0123456789abcdef"


def test_every_new_live_record_is_looked_at(home: Home, daemon: Daemon, drifting: Ticked) -> None:
    nothing = daemon.sensor(drifting.cursor, name="drift_refinement")
    assert (nothing.requests, nothing.message) == ({}, "no new live records")
    for symbol in ("AAA", "BBB", "CCC"):  # within one tick
        scored(daemon, home, "2023-09", symbol, drifted=symbol != "AAA", in_production="toto")
    scored(daemon, home, "2023-06", "AAA", drifted=True)  # filled in later
    ticked = daemon.sensor(drifting.cursor, name="drift_refinement")
    keys = {str(request.run_key) for request in ticked.requests.values()}
    assert keys == {
        f"{key}|0123456789abcdef|drift" for key in ("2023-06|AAA", "2023-09|BBB", "2023-09|CCC")
    }
    ops = ticked.requests["CCC"].run_config["ops"]
    assert list(ops) == ["toto_refined"]


@pytest.mark.parametrize("what", ["naive", None])
def test_what_is_no_model_is_not_refined(
    home: Home, daemon: Daemon, drifting: Ticked, what: str | None
) -> None:
    scored(daemon, home, "2023-09", "BBB", drifted=True, in_production=what)
    ticked = daemon.sensor(drifting.cursor, name="drift_refinement")
    assert ticked.message == "1 live records, none of which has drifted"


class Summaries:
    """Looks of the sensor `summaries`, and what is made between them."""

    def __init__(self, location: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._location, self._instance = location, instance
        self._cursor: Any = None

    def look(self) -> dict[str, set[str]]:
        """Months that are asked for, by summary."""
        result = dg.evaluate_automation_conditions(
            self._location, self._instance, cursor=self._cursor
        )
        self._cursor = result.cursor
        asked = {n: result.get_requested_partitions(dg.AssetKey(n)) for n in sorted(SUMMARIES)}
        return {name: set(months) for name, months in asked.items() if months}

    def made(self, month: str, *names: str, symbol: str | None = None) -> None:
        """Results of a stock, or of a month."""
        key = partition_key(month, symbol) if symbol else month
        for name in names:
            self._instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=key))

    def ended(self, run: dg.DagsterRun) -> None:
        """A run that has failed."""
        self._instance.report_run_failed(run)

    def begun(self, month: str, symbol: str, job: str) -> dg.DagsterRun:
        """A run of a job on a stock that has made nothing yet."""
        key = partition_key(month, symbol)
        return self._instance.create_run_for_job(
            self._location.resolve_job_def(job),
            status=dg.DagsterRunStatus.STARTED,
            tags=dict(month_stock.get_tags_for_partition_key(key)),
        )


ORDER = (
    *("comparison_summary", "params_summary", "regression_report"),
    *("guide_files", "month_report"),
)
SUMMARIES = set(ORDER)
FROM_COMPARISON = SUMMARIES - {"params_summary"}


def asked_for(month: str, *names: str) -> dict[str, set[str]]:
    """What a look is to find."""
    return {name: {month} for name in names}


@pytest.fixture
def summaries(location: dg.Definitions) -> Any:
    """An instance whose history is not summed up, after the first look."""
    with dg.DagsterInstance.ephemeral() as instance:
        register_stocks(instance, ["AAA", "BBB"])
        looks = Summaries(location, instance)
        for month in ("2023-06", "2023-07"):
            for symbol in ("AAA", "BBB"):
                looks.made(month, "comparison", "champion", "kronos_params", symbol=symbol)
        assert looks.look() == {}  # not the whole history
        assert looks.look() == {}
        yield looks


@pytest.mark.parametrize("month", ["2023-06", "2023-08"])
def test_a_month_is_summed_up_when_a_stock_of_it_is_done(summaries: Summaries, month: str) -> None:
    summaries.made(month, "comparison", symbol="AAA")  # BBB has none in 2023-08
    assert summaries.look() == asked_for(month, *FROM_COMPARISON)
    # Asked for once, also if it fails; and not again because of what it brings forth.
    assert summaries.look() == {}
    summaries.made(month, *ORDER)
    assert summaries.look() == {}
    assert summaries.look() == {}
    summaries.made(month, "comparison", symbol="BBB")
    assert set(summaries.look()) == FROM_COMPARISON


def test_parameters_lead_to_their_own_summary(summaries: Summaries) -> None:
    summaries.made("2023-07", "toto_params", symbol="BBB")
    assert summaries.look() == asked_for("2023-07", *SUMMARIES - {"comparison_summary"})


@pytest.mark.parametrize("job", ["compare_stock", "retrain_stock"])
def test_nothing_is_summed_up_while_a_stock_is_under_way(summaries: Summaries, job: str) -> None:
    run = summaries.begun("2023-07", "BBB", job)
    summaries.made("2023-07", "comparison", symbol="AAA")
    summaries.made("2023-06", "comparison", symbol="AAA")
    assert summaries.look() == asked_for("2023-06", *FROM_COMPARISON)
    assert summaries.look() == {}
    summaries.ended(run)
    assert summaries.look() == asked_for("2023-07", *FROM_COMPARISON)


def test_a_stock_is_summed_up_as_a_whole(summaries: Summaries) -> None:
    run = summaries.begun("2023-07", "BBB", "retrain_stock")
    for name in ("kronos_adapter", "kronos_params", "comparison"):
        summaries.made("2023-07", name, symbol="BBB")
        assert summaries.look() == {}
    summaries.ended(run)
    assert summaries.look() == asked_for("2023-07", *SUMMARIES)


def test_what_a_command_has_summed_up_is_left_alone(summaries: Summaries) -> None:
    summaries.made("2023-08", "comparison", "champion", symbol="AAA")
    summaries.made("2023-08", *ORDER)
    assert summaries.look() == {}
    assert summaries.look() == {}
    # A stock that is done after that, though before the sensor looked again, is not missed.
    summaries.made("2023-08", *ORDER)
    summaries.made("2023-08", "comparison", symbol="BBB")
    assert summaries.look() == asked_for("2023-08", *FROM_COMPARISON)
