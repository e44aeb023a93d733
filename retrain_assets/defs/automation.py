"""What follows by itself: the month's summaries, and refinement where it is turned on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.champion import champion
from retrain_assets.defs.live_performance import live_performance
from retrain_assets.defs.partitions import month_and_symbol, partition_key
from retrain_assets.defs.regression_report import JSON_FILE, regression_report
from retrain_assets.defs.resources import Reports
from retrain_assets.errors import BadInput
from retrain_assets.evaluation.asset_names import refined_name
from retrain_assets.files import read_json
from retrain_assets.models.forecaster import families

if TYPE_CHECKING:
    # Not exported, though it is what `define_asset_job` returns.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

REFINE = "refine"
SUMMARIES = "summaries"
DRIFT_REFINEMENT = "drift_refinement"

_MOST_AT_ONCE = 1000  # live records that one look goes through

# Dagster compares the moments of two updates within one look only where no "and" or "or" comes
# between, so what is new is held against a summary and against a request one by one. Nothing
# counts as new on the first look, so the history is left alone.
_NEW = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
_NOT_SUMMED_UP = _NEW.since(dg.AutomationCondition.newly_updated())  # not by `retrain run` either
_NOT_ASKED_FOR = _NEW.since(dg.AutomationCondition.newly_requested())  # a failure is not repeated
_WITH_ITS_OWN = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
# A run of a stock ends with these. What sums up its earlier stages waits for them as well, so that
# everything is made by one run.
_DECIDING, _SCORING = (
    dg.AutomationCondition.asset_matches(asset.key, dg.AutomationCondition.in_progress())
    for asset in (champion, live_performance)
)
_UNDER_WAY = dg.AutomationCondition.any_deps_in_progress() | _DECIDING | _SCORING
FOLLOWS = (
    (_NOT_SUMMED_UP & _NOT_ASKED_FOR | _WITH_ITS_OWN)
    & ~_UNDER_WAY
    & ~dg.AutomationCondition.in_progress()
).with_label("some stocks of the month are new, and none is under way")
"""When a summary is made: for any month, since a backfill fills old ones."""


def following(summaries: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The month's assets, each made anew when what it sums up has changed."""
    return [
        definition
        for definition in dg.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=FOLLOWS), summaries
        )
        if isinstance(definition, dg.AssetsDefinition)
    ]


def build_summaries(summaries: Sequence[dg.AssetsDefinition]) -> dg.SensorDefinition:
    """The sensor that makes them."""
    return dg.AutomationConditionSensorDefinition(
        SUMMARIES,
        target=dg.AssetSelection.assets(*summaries),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Sums a month up when some of its stocks have new results and none is still under way."
        ),
    )


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
            yield _refinement(
                month,
                row["symbol"],
                row["family"],
                run_config=row["run_config"],
                run_key=f"{month}|{row['symbol']}|{row['family']}|{row['rung']}",
                tags={"retrain/rung": row["rung"]},
            )

    return escalation


def build_drift_refinement(job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """The sensor that runs the next rung of what has drifted in production."""

    @dg.sensor(
        name=DRIFT_REFINEMENT,
        job=job,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Runs the next rung of the ladder for a stock whose version in production errs more, "
            "against naive, than where it was selected: once for each month, stock and version. "
            "Turned on, it begins with the latest month of each stock. Off until then, for the "
            "same reasons as `escalation`."
        ),
    )
    def drift_refinement(
        context: dg.SensorEvaluationContext, reports: Reports
    ) -> dg.SensorResult | dg.SkipReason:
        keys, cursor = _new_live_records(context)
        if not keys:
            return dg.SkipReason("no new live records")
        drifted = [live for key in keys if (live := _drifted(context, reports, key))]
        told = f"{len(keys)} live records, none of which has drifted"
        return dg.SensorResult(
            run_requests=[_against_drift(live) for live in drifted],
            skip_reason=None if drifted else told,
            cursor=str(cursor),
        )

    return drift_refinement


def _new_live_records(context: dg.SensorEvaluationContext) -> tuple[list[str], int]:
    """Partitions that were scored since the look before, and the cursor for the next.

    On the first look, or with a cursor that is none, the latest month of each stock.
    """
    cursor = context.cursor or ""
    after = int(cursor) if cursor.isdecimal() else None
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=live_performance.key, after_storage_id=after),
        limit=_MOST_AT_ONCE,
        ascending=after is not None,
    ).records
    keys = sorted({str(record.partition_key) for record in found if record.partition_key})
    if after is None:
        # Keys begin with the month, so of each stock the last one stays.
        keys = sorted({month_and_symbol(key)[1]: key for key in keys}.values())
    return keys, max((record.storage_id for record in found), default=after or 0)


def _drifted(
    context: dg.SensorEvaluationContext, reports: Reports, key: str
) -> dict[str, Any] | None:
    """The live record of a partition, if a family's version has drifted that is in production."""
    month, symbol = month_and_symbol(key)
    try:
        live: dict[str, Any] = read_json(reports.live(month, symbol))
    except BadInput as error:
        context.log.warning(f"{key} is left out: {error}")
        return None
    return live if live["drift"]["drifted"] and live["in_production"] in families() else None


def _against_drift(live: dict[str, Any]) -> dg.RunRequest:
    family = live["in_production"]
    return _refinement(
        live["month"],
        live["symbol"],
        family,
        run_config={"ops": {refined_name(family): {"config": {"rungs": 1}}}},
        run_key=f"{live['month']}|{live['symbol']}|{live['version']}|drift",
        tags={"retrain/drifted": live["version"]},
    )


def _refinement(
    month: str,
    symbol: str,
    family: str,
    *,
    run_config: dict[str, Any],
    run_key: str,
    tags: dict[str, str],
) -> dg.RunRequest:
    """A rung of one family, then the comparison and the decision again."""
    return dg.RunRequest(
        run_key=run_key,
        partition_key=partition_key(month, symbol),
        run_config=run_config,
        asset_selection=[
            dg.AssetKey(name) for name in (refined_name(family), "comparison", "champion")
        ],
        tags=tags,
    )
