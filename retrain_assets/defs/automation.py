"""What starts by itself: for now the ladder of stocks that the regression report names."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from retrain_assets.defs.partitions import partition_key
from retrain_assets.defs.refinement import refined_name
from retrain_assets.defs.regression import JSON_FILE, regression_report
from retrain_assets.defs.resources import Reports
from retrain_assets.files import read_json

if TYPE_CHECKING:
    # Not exported, though it is what `define_asset_job` returns.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

REFINE = "refine"


def build_escalation(job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """The sensor that runs the next rung of what a report recommends to refine."""

    @dg.asset_sensor(
        name="escalation",
        asset_key=regression_report.key,
        job=job,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Runs the next rung of the ladder for every stock and family that a month's regression "
            "report says to refine, each rung once. Off until it is turned on: a rung costs as "
            "much as a training, and is one more try that promotion has to count."
        ),
    )
    def escalation(
        context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry, reports: Reports
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        made = asset_event.asset_materialization
        month = str(made.partition) if made else ""
        analysis = read_json(reports.regressions(month) / JSON_FILE)
        advice = [row for row in analysis["recommendations"] if row["action"] == REFINE]
        if not advice:
            yield dg.SkipReason(f"the report of {month} has nothing to refine")
        for row in advice:
            name = refined_name(row["family"])
            yield dg.RunRequest(
                run_key=f"{month}|{row['symbol']}|{row['family']}|{row['rung']}",
                partition_key=partition_key(month, row["symbol"]),
                run_config=row["run_config"],
                asset_selection=[dg.AssetKey(n) for n in (name, "comparison", "champion")],
                tags={"retrain/rung": row["rung"]},
            )

    return escalation
