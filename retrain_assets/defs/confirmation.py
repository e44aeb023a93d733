"""Beside the regression report: a suspicion looked at on a longer window of sessions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
from pydantic import Field

from retrain_assets.defs.device import Device
from retrain_assets.defs.io import OPTIONAL, PartitionBars
from retrain_assets.defs.legible import legible
from retrain_assets.defs.partitions import month_and_symbol, month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Models
from retrain_assets.errors import BadInput
from retrain_assets.operation import GPU, OWNERS

if TYPE_CHECKING:
    from retrain_assets.evaluation.versions import Version
    from retrain_assets.training.splits import Split


class ConfirmationConfig(dg.Config):
    """How far back the look goes."""

    holdout_days: int = Field(28, ge=1, description="Sessions at the month's end to forecast.")


@dg.asset(
    partitions_def=month_stock,
    group_name="regression",
    kinds={"pytorch", "json"},
    owners=OWNERS,
    pool=GPU,
    ins={"comparison": dg.AssetIn(metadata=OPTIONAL), "champion": dg.AssetIn(metadata=OPTIONAL)},
)
def confirmation(
    context: dg.AssetExecutionContext,
    config: ConfirmationConfig,
    market_bars: PartitionBars,
    comparison: dict[str, Any] | None,
    champion: dict[str, Any] | None,
    models: Models,
    device: Device,
) -> dg.Output[dict[str, Any]]:
    """Candidates and their rivals forecast a longer window than the test's three origins.

    Forecasts of the holdout's length, one after the other, over the last sessions of the month,
    28 by default. The window may not reach into the sessions that settings were chosen on. From
    eight forecasts on there is a p-value.
    """
    with failing_plainly(), device.lease() as where:
        if comparison is None:
            month, symbol = month_and_symbol(context.partition_key)
            raise BadInput(
                f"no comparison of {symbol} {month} to confirm: "
                f"`retrain run --stocks {symbol} --month {month}`"
            )
        found = _looked(market_bars, comparison, champion, config.holdout_days, models, where)
    tell(context, f"{len(found['origins'])} forecasts of {found['horizon']} sessions", 1.0)
    return dg.Output(found, metadata=legible(_metadata(found)))


def _looked(
    view: PartitionBars,
    comparison: dict[str, Any],
    champion: dict[str, Any] | None,
    sessions: int,
    models: Models,
    device: str,
) -> dict[str, Any]:
    from retrain_assets.evaluation.confirmation import confirmation_origins
    from retrain_assets.evaluation.rescoring import losses_at
    from retrain_assets.training.splits import Split

    if comparison["bars_hash"] != view.hash:
        raise BadInput(
            f"the comparison of {view.symbol} {view.month} was made on other bars: materialize "
            "it again"
        )
    adapter = next(iter(comparison["candidates"].values()))["version"]["adapter"]
    split = Split.from_json(adapter["split"])
    origins = confirmation_origins(split, sessions)
    versions = _versions(comparison, champion)
    forecasters = {
        name: (models.forecaster(version, name, device), version)
        for name, version in versions.items()
    }
    losses = losses_at(view.bars, origins, split.holdout_days, forecasters, symbol=view.symbol)
    return _result(view, split, sessions, origins, losses) | {
        "bars_hash": view.hash,
        "candidates": candidate_ids(comparison),
    }


def candidate_ids(comparison: Mapping[str, Any]) -> dict[str, str]:
    """By family the id of a comparison's candidate, to tell whether a look was at the same one."""
    from retrain_assets.evaluation.versions import Version

    entries = comparison["candidates"].items()
    return {family: Version.from_json(entry["version"]).id for family, entry in entries}


def _versions(comparison: dict[str, Any], champion: dict[str, Any] | None) -> "dict[str, Version]":
    """By name each family's candidate and what it is measured against."""
    from retrain_assets.evaluation.versions import Version

    named: dict[str, dict[str, Any]] = {}
    for family, entry in comparison["candidates"].items():
        named[f"{family}.candidate"] = entry["version"]
        named[f"{family}.zero_shot"] = comparison["zero_shot"][family]
        if family in comparison["last_month"]:
            named[f"{family}.last_month"] = comparison["last_month"][family]
        if champion is not None and family in champion["families"]:
            named[f"{family}.incumbent"] = champion["families"][family]["incumbent"]
    return {name: Version.from_json(value) for name, value in named.items()}


def _result(
    view: PartitionBars,
    split: "Split",
    sessions: int,
    origins: list[int],
    losses: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Errors and paired tests as JSON values."""
    from retrain_assets.evaluation.confirmation import against

    return {
        "symbol": view.symbol,
        "month": view.month,
        "holdout_days": sessions,
        "horizon": split.holdout_days,
        "origins": [f"{view.bars['session'].iloc[o]:%Y-%m-%d}" for o in origins],
        "mae_pct": {name: 100 * float(values.mean()) for name, values in losses.items()},
        "tests": against(losses),
    }


def _metadata(found: dict[str, Any]) -> dict[str, Any]:
    rows = [dg.TableRecord({"what": name, "MAE %": mae}) for name, mae in found["mae_pct"].items()]
    tests = [dg.TableRecord(row) for row in found["tests"]]
    return {
        "errors": dg.MetadataValue.table(rows),
        **({"tests": dg.MetadataValue.table(tests)} if tests else {}),
        "origins": len(found["origins"]),
    }
