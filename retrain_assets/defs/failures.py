"""Why assets of a partition failed, out of Dagster's own history of runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg

from retrain_assets.defs.requests import PARTITION_TAG

if TYPE_CHECKING:
    from dagster._core.execution.plan.objects import StepFailureData
    from dagster_shared.error import SerializableErrorInfo

_LOOKED_AT = 10  # failed runs of one partition, the latest first
RUN = "run"
SILENT = "the run ended without saying why: look at its page"


def failures_of(
    instance: dg.DagsterInstance, key: dg.MultiPartitionKey, assets: Iterable[str]
) -> dict[str, str]:
    """Errors of a partition's assets by name: of those that failed and were not made since.

    assets: names to look for. A run that failed without naming an asset is told under "run",
    unless the partition's last run succeeded.
    """
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={PARTITION_TAG: str(key)})
    names, found = list(assets), dict[str, str]()
    latest = instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: str(key)}), limit=1)
    healed = bool(latest) and latest[0].status == dg.DagsterRunStatus.SUCCESS
    for record in instance.get_run_records(filters, limit=_LOOKED_AT):
        reasons = _reasons(instance, record.dagster_run.run_id, names)
        ended = record.end_time or record.update_timestamp.timestamp()
        for name, reason in reasons.items():
            known = name in found or (name == RUN and healed)
            if not known and not _made_since(instance, name, key, ended):
                found[name] = reason
    return found


def _reasons(instance: dg.DagsterInstance, run_id: str, names: list[str]) -> dict[str, str]:
    """What failed in a run and why: checks that failed, steps that raised, or the run itself."""
    reasons: dict[str, str] = {}
    kinds = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.STEP_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.get_dagster_event()
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            reasons.setdefault(
                step_owner(str(event.step_key), names), failure_reason(event.step_failure_data)
            )
            continue
        check = event.asset_check_evaluation_data
        if not check.passed and check.blocking:
            told = f"check {check.check_name}: {check.description}"
            reasons.setdefault(check.asset_key.to_user_string(), told)
    return reasons or {RUN: SILENT}


def step_owner(step: str, names: Iterable[str]) -> str:
    """The asset a step belongs to: the step of a check has a name that begins with its asset's."""
    return max((name for name in names if step.startswith(name)), key=len, default=step)


def failure_reason(failure: StepFailureData) -> str:
    """Why a step failed, in the words of whoever raised it."""
    if failure.user_failure_data and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    return root_error(failure.error).message.strip() if failure.error else SILENT


def root_error(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """The error at the bottom of what was raised from it."""
    return root_error(error.cause) if error.cause else error


def _made_since(
    instance: dg.DagsterInstance, name: str, key: dg.MultiPartitionKey, moment: float
) -> bool:
    """Whether an asset's partition was materialized after a moment."""
    if name == RUN:
        return False
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), asset_partitions=[str(key)])
    latest = instance.fetch_materializations(wanted, limit=1).records
    return bool(latest) and latest[0].timestamp > moment
