"""Seventh stage: how the champions of the month before did on this month's bars."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd

from retrain_assets.defs.device import Device
from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.partitions import month_stock, of_month_before
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Models, Production, Reports
from retrain_assets.defs.reuse import Reuse, code_version, force_field
from retrain_assets.files import write_json
from retrain_assets.operation import GPU, OWNERS

if TYPE_CHECKING:
    from retrain_assets.evaluation.production import ProductionStore
    from retrain_assets.evaluation.versions import Version

DRIFT_CHECK = "live_drift"


class LiveConfig(dg.Config):
    """Whether it is computed in any case."""

    force: bool = force_field()


@dg.asset(
    partitions_def=month_stock,
    group_name="promotion",
    kinds={"pytorch", "json"},
    owners=OWNERS,
    pool=GPU,
    code_version=code_version(__file__),
    # For the order alone: what stood is read from the store, which knows what went live.
    deps=[dg.AssetDep("champion", partition_mapping=of_month_before())],
)
def live_performance(
    context: dg.AssetExecutionContext,
    config: LiveConfig,
    market_bars: PartitionBars,
    models: Models,
    device: Device,
    production: Production,
    reports: Reports,
    reuse: Reuse,
) -> dg.Output[dict[str, Any]]:
    """What was in production at the end of the month before, scored on this month's bars.

    Beside naive, on forecasts of the holdout's sessions, one after the other through the month.
    The families' champions are scored as well, whether production pointed to them or not. A check
    says when what is in production errs more against naive than it did where it was selected. Of
    a month that never went into production it is what would have stood.
    """
    symbol, month = market_bars.symbol, market_bars.month
    with failing_plainly():
        store = production.store()
        record = store.in_force(symbol, month)
        earlier = reports.live_records(symbol, before=month)
        recipe = reuse.recipe(
            context,
            config,
            files=lambda _: [reports.live(month, symbol)],
            bars=market_bars.hash,
            provisional=market_bars.provisional,
            in_force=record,
            promoted=[store.selected(symbol, s["since"]) for s in _families(record)],
            earlier=earlier,
            threads=device.threads,
        )
        if (before := recipe.before()) is not None:
            return before
        if record is None:
            live: dict[str, Any] = _nothing(market_bars)
        else:
            with device.lease() as where:
                live = _scored(market_bars, record, earlier, store, models, where)
        write_json(reports.live(month, symbol), live)
    tell(context, live["reason"], 1.0)
    return recipe.output(live, metadata=_metadata(live, earlier))


@dg.asset_check(asset=live_performance, name=DRIFT_CHECK, partitions_def=month_stock)
def live_drift(live_performance: dict[str, Any]) -> dg.AssetCheckResult:
    """What is in production still does what it was promoted for, as far as can be told."""
    found = live_performance["drift"]
    return dg.AssetCheckResult(
        passed=not found["drifted"],
        severity=dg.AssetCheckSeverity.WARN,
        description=found["reason"],
    )


def _families(record: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if record is None else list(record["families"].values())


def _nothing(view: PartitionBars) -> dict[str, Any]:
    from retrain_assets.evaluation.live_record import Drift

    reason = "nothing was decided at the end of the month before"
    return {
        "symbol": view.symbol,
        "month": view.month,
        "in_production": None,
        "entries": {},
        "origins": [],
        "drift": Drift(False, None, reason).to_json(),
        "reason": reason,
    }


def _scored(
    view: PartitionBars,
    record: dict[str, Any],
    earlier: list[dict[str, Any]],
    store: "ProductionStore",
    models: Models,
    device: str,
) -> dict[str, Any]:
    """The month's live record: an entry for the pointer and for each champion."""
    from retrain_assets.evaluation.comparison import NAIVE
    from retrain_assets.evaluation.live_record import drift, live_entry, live_origins
    from retrain_assets.evaluation.rescoring import losses_at
    from retrain_assets.evaluation.versions import POINTER, Version

    versions = {f: Version.from_json(s["champion"]) for f, s in record["families"].items()}
    versions[POINTER] = Version.from_json(record["pointer"]["version"])
    days = _days(record)
    sessions = pd.DatetimeIndex(view.bars["session"])
    origins = live_origins(sessions, pd.Timestamp(record["cut"]), days)
    entries = {}
    if origins:
        loaded = {name: (models.forecaster(v, name, device), v) for name, v in versions.items()}
        losses = losses_at(view.bars, origins, days, loaded, symbol=view.symbol)
        entries = {name: live_entry(losses, name) for name in versions}
    pointed = versions[POINTER]
    history = [e["entries"][POINTER] for e in earlier if e["version"] == pointed.id]
    if entries:
        history.append(entries[POINTER])
    to = record["pointer"]["to"]
    since = record["families"][to]["since"] if to != NAIVE else None
    found = drift(
        history, _selected(store.selected(view.symbol, since), pointed) if since else None
    )
    return {
        "symbol": view.symbol,
        "month": view.month,
        "provisional": view.provisional,
        "in_production": record["pointer"]["to"],
        "version": pointed.id,
        "versions": {name: version.id for name, version in versions.items()},
        "horizon": days,
        "origins": [f"{sessions[o]:%Y-%m-%d}" for o in origins],
        "entries": entries,
        "drift": found.to_json(),
        "decided_in": record["month"],
        "went_live": record["live"],
        "reason": _in_words(to, entries.get(POINTER), live=record["live"]),
    }


def _days(record: dict[str, Any]) -> int:
    """H of the champions' month, from the adapter of a candidate; 7 where there is none."""
    for state in record["families"].values():
        version = state["candidate"] or state["champion"]
        if version["adapter"] is not None:
            return int(version["adapter"]["split"]["holdout_days"])
    return 7


def _selected(
    record: dict[str, Any] | None, version: "Version"
) -> tuple[np.ndarray, np.ndarray] | None:
    """Relative losses of a version and of naive on the selection origins it was promoted by.

    record: of the month that promoted it; None if that is not known.
    """
    from retrain_assets.evaluation.comparison import NAIVE
    from retrain_assets.evaluation.pooling import relative_losses

    if record is None or record["families"][version.family]["champion"] != version.to_json():
        return None
    losses = relative_losses(record["losses"]["selection"])
    promoted = record["families"][version.family]["decision"]["promote"]
    own = losses[f"{version.family}.{'candidate' if promoted else 'incumbent'}"]
    return own.to_numpy(), losses[NAIVE].to_numpy()


def _in_words(to: str, entry: dict[str, Any] | None, *, live: bool) -> str:
    from retrain_assets.evaluation.comparison import NAIVE

    was = "was" if live else "would have been"
    if entry is None:
        return "the month has too few bars for a forecast"
    if to == NAIVE:
        return f"naive {was} in production: error {entry['naive_mae_pct']:.2f} %"
    skill = "none" if entry["skill"] is None else f"{100 * entry['skill']:+.1f} %"
    return (
        f"{to} {was} in production: error {entry['mae_pct']:.2f} %, naive's "
        f"{entry['naive_mae_pct']:.2f} %, skill {skill}"
    )


def _metadata(live: dict[str, Any], earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page of one partition shows: this month, and what was live in the months before."""
    from retrain_assets.evaluation.versions import POINTER

    rows = [dg.TableRecord({"what": n} | _errors(e)) for n, e in live["entries"].items()]
    so_far = [
        dg.TableRecord({"month": one["month"], "was live": one["in_production"]} | _errors(entry))
        for one in (*earlier, live)
        if (entry := one["entries"].get(POINTER)) is not None
    ]
    return {
        "in production": live["in_production"] or "nothing yet",
        "reason": live["reason"],
        "drift": live["drift"]["reason"],
        "origins": len(live["origins"]),
        **({"scores": dg.MetadataValue.table(rows)} if rows else {}),
        **({"record so far": dg.MetadataValue.table(so_far)} if so_far else {}),
    }


def _errors(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "MAE %": entry["mae_pct"],
        "naive MAE %": entry["naive_mae_pct"],
        "skill": entry["skill"],
    }
