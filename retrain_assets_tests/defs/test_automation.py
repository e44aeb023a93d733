"""What starts by itself, and that it does not until it is told to."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from retrain_assets.definitions import build_definitions
from retrain_assets.defs.partitions import register_stocks
from retrain_assets.defs.regression import JSON_FILE
from retrain_assets.files import write_json
from retrain_assets.home import Home

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
