"""Which stocks of a month got worse, failed, are missing or stale, and what to do about it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.confirmation import candidate_ids
from retrain_assets.defs.failures import failures_of
from retrain_assets.defs.io import GATHERED
from retrain_assets.defs.partitions import month, partition_key
from retrain_assets.defs.progress import failing_plainly
from retrain_assets.defs.resources import Bars, Reports
from retrain_assets.defs.staleness import expected, stale
from retrain_assets.errors import RetrainError
from retrain_assets.evaluation.asset_names import adapter_name, params_name, refined_name
from retrain_assets.files import write_json, write_text
from retrain_assets.market.calendar import month_before
from retrain_assets.models.forecaster import families
from retrain_assets.operation import OWNERS

if TYPE_CHECKING:
    import pandas as pd

    from retrain_assets.evaluation.regression import StockFacts
    from retrain_assets.training.ladder import RungResult

JSON_FILE = "regression_analysis.json"
TEXT_FILE = "regression_analysis.txt"
_EXPECTED = ["comparison", "champion"]
_FAMILY_ASSETS = [name(f) for f in families() for name in (adapter_name, params_name)]
_INPUTS = [*_EXPECTED, *_FAMILY_ASSETS, "confirmation", *(refined_name(f) for f in families())]

Records = Mapping[str, Mapping[str, Any]]


@dg.asset(
    partitions_def=month,
    group_name="regression",
    kinds={"json"},
    owners=OWNERS,
    ins={name: dg.AssetIn(metadata=GATHERED) for name in _INPUTS},
)
def regression_report(
    context: dg.AssetExecutionContext,
    bars: Bars,
    reports: Reports,
    **records: dict[str, dict[str, Any]],
) -> dg.Output[dict[str, str]]:
    """Each stock's candidate against what is in place, its own last month, and its base.

    Like with like: the same metric, horizon and origins. Stocks that failed are listed with their
    errors, and so are those that are missing, stale or gone. What to do about it stands below as
    commands to copy and as run configurations for the launchpad.
    """
    from retrain_assets.evaluation.regression import regression_analysis
    from retrain_assets.evaluation.regression_text import render_analysis

    key = str(context.partition_key)
    stocks = context.instance.get_dynamic_partitions("stock")
    with failing_plainly():
        facts = [_facts(context.instance, key, symbol, records, bars, reports) for symbol in stocks]
        analysis = regression_analysis(key, facts)
        text = render_analysis(analysis)
        folder = reports.regressions(key)
        write_json(folder / JSON_FILE, analysis)
        write_text(folder / TEXT_FILE, text + "\n")
    summary = analysis["summary"]
    context.log.info(f"{summary['total_regressions']} worse, {summary['total_failures']} failures")
    return dg.Output(
        {"file": str(folder / JSON_FILE)},
        metadata={
            "report": dg.MetadataValue.md(f"```\n{text}\n```"),
            "worse": summary["total_regressions"],
            "failures": summary["total_failures"],
            "recommendations": dg.MetadataValue.json(analysis["recommendations"]),
            "file": dg.MetadataValue.path(folder / JSON_FILE),
        },
    )


def _facts(
    instance: dg.DagsterInstance,
    month: str,
    symbol: str,
    records: Mapping[str, Records],
    bars: Bars,
    reports: Reports,
) -> "StockFacts":
    """Everything that is known of one stock and month."""
    from retrain_assets.evaluation.regression import StockFacts
    from retrain_assets.market.schema import warnings

    key = partition_key(month, symbol)
    found = {name: by_key[str(key)] for name, by_key in records.items() if str(key) in by_key}
    try:
        view, vanished = bars.view(month, symbol), None
    except RetrainError as error:
        view, vanished = None, str(error)
    history = None if view is None else view.bars
    failures = failures_of(instance, key, ["market_bars", "baseline_metrics", *_INPUTS])
    wanted = [*expected(found), *_EXPECTED]
    missing = [name for name in wanted if name not in found and name not in failures]
    return StockFacts(
        symbol=symbol,
        comparison=found.get("comparison"),
        earlier=reports.comparison_record(month_before(month), symbol),
        champion=found.get("champion"),
        confirmation=_confirmation(found),
        adapters={f: found[adapter_name(f)] for f in families() if adapter_name(f) in found},
        rungs=_rungs(found),
        failures=failures,
        missing=[] if vanished else missing,
        stale={} if view is None else stale(found, view.hash),
        volatility_pct=_volatility(history, month),
        earlier_volatility_pct=_volatility(history, month_before(month)),
        odd_bars=[] if view is None else list(warnings(view.bars, view.calendar)),
        vanished=vanished,
    )


def _confirmation(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The look on a longer window, if it was at the candidates that the comparison has now."""
    look, comparison = found.get("confirmation"), found.get("comparison")
    if look is None or comparison is None:
        return None
    return look if look["candidates"] == candidate_ids(comparison) else None


def _rungs(found: Mapping[str, Any]) -> "dict[str, list[RungResult]]":
    from retrain_assets.evaluation.refinement import Refinement

    return {
        name: list(Refinement.from_json(found[refined_name(name)]).done)
        for name in families()
        if refined_name(name) in found
    }


def _volatility(history: "pd.DataFrame | None", month: str) -> float | None:
    """Sample sd of a month's daily log returns in %, None with fewer than three of them."""
    import numpy as np

    if history is None:
        return None
    returns = np.log(history["close"]).diff()[history["session"].dt.strftime("%Y-%m") == month]
    return None if returns.count() < 3 else float(100 * returns.std())
