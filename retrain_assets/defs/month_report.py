"""The month for people: one HTML file that needs nothing else, made of the month's records."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.io import GATHERED
from retrain_assets.defs.partitions import month, month_and_symbol
from retrain_assets.defs.progress import failing_plainly
from retrain_assets.defs.regression_report import JSON_FILE
from retrain_assets.defs.resources import Bars, Reports
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.files import read_json, write_text
from retrain_assets.home import DAGSTER_PAGE
from retrain_assets.models.forecaster import families
from retrain_assets.operation import OWNERS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from retrain_assets.evaluation.monthly.facts import MonthFacts, SeenBars

SUMMARY = "summary"
"""Metadata that holds the three sentences."""
_ADAPTERS = {adapter_name(family): family for family in families()}
_SEARCHES = {params_name(family): family for family in families()}
_DECIDED = ("comparison", "champion", "live_performance")
_INPUTS = (*_DECIDED, *_ADAPTERS, *_SEARCHES)
_MOST_RUNS = 5000

Records = Mapping[str, Mapping[str, Any]]


@dg.asset(
    partitions_def=month,
    group_name="report",
    kinds={"html"},
    owners=OWNERS,
    ins={name: dg.AssetIn(metadata=GATHERED) for name in _INPUTS},
    deps=["comparison_summary", "params_summary", "regression_report"],
)
def month_report(
    context: dg.AssetExecutionContext,
    bars: Bars,
    reports: Reports,
    **records: dict[str, dict[str, Any]],
) -> dg.Output[dict[str, str]]:
    """What the month came to, as a page for people: three sentences, then what they rest on.

    How good the forecasts are, what went into production and why, what to do now; then pictures and
    tables of errors, decisions, parameters, training, bars and versions. One file that makes no
    request, for a phone, a screen or paper; the same records give the same bytes.
    """
    from retrain_assets.evaluation.monthly.page import markdown, page
    from retrain_assets.evaluation.monthly.sentences import sentences

    key = str(context.partition_key)
    with failing_plainly():
        facts = _facts(context.instance, key, records, bars, reports)
        told, text = sentences(facts), page(facts)
        file = reports.monthly(key)
        write_text(file, text)
    for sentence in told:
        context.log.info(sentence.text)
    return dg.Output(
        {"file": str(file)},
        metadata={
            SUMMARY: dg.MetadataValue.md(markdown(told)),
            "stocks": len(facts.records),
            "commands to run": len((facts.analysis or {}).get("commands", [])),
            "size, kB": round(len(text.encode()) / 1000),
            "file": dg.MetadataValue.path(file),
        },
    )


def _facts(
    instance: dg.DagsterInstance,
    month: str,
    records: Mapping[str, Records],
    bars: Bars,
    reports: Reports,
) -> "MonthFacts":
    """Everything that is stored of a month."""
    from retrain_assets.evaluation.monthly.facts import MonthFacts

    found = {name: _by_symbol(records[name]) for name in _INPUTS}
    compared: dict[str, Any] = found["comparison"]
    stocks = instance.get_dynamic_partitions("stock")
    analysis = reports.regressions(month) / JSON_FILE
    seen = {symbol: _seen(bars, month, symbol) for symbol in stocks}
    forecasts = {symbol: _forecasts(reports, month, symbol) for symbol in compared}
    return MonthFacts(
        month=month,
        comparisons=compared,
        earlier=reports.earlier_comparisons(month),
        champions=found["champion"],
        analysis=read_json(analysis) if analysis.exists() else None,
        adapters={family: found[name] for name, family in _ADAPTERS.items() if found[name]},
        searches={family: found[name] for name, family in _SEARCHES.items() if found[name]},
        live=found["live_performance"],
        live_before={s: reports.live_records(s, before=month) for s in found["live_performance"]},
        bars={symbol: one for symbol, one in seen.items() if one is not None},
        forecasts={symbol: table for symbol, table in forecasts.items() if table is not None},
        pages=_pages(instance, {name: records[name] for name in _INPUTS}),
    )


def _by_symbol(records: Records) -> dict[str, Mapping[str, Any]]:
    return {month_and_symbol(key)[1]: record for key, record in sorted(records.items())}


def _seen(bars: Bars, month: str, symbol: str) -> "SeenBars | None":
    """What the month sees of a stock's history; None where there is nothing, which others tell."""
    from retrain_assets.evaluation.monthly.facts import SeenBars
    from retrain_assets.market.schema import warnings

    try:
        view = bars.view(month, symbol)
    except RetrainError:
        return None
    return SeenBars(
        bars=len(view.bars),
        first=f"{view.bars['session'].iloc[0]:%Y-%m-%d}",
        last=f"{view.cut:%Y-%m-%d}",
        provisional=view.provisional,
        source=bars.store().source(symbol),
        odd=warnings(view.bars, view.calendar),
    )


def _forecasts(reports: Reports, month: str, symbol: str) -> "pd.DataFrame | None":
    """The forecasts that were compared, None if they are not there any more."""
    file = reports.comparisons(month) / f"{symbol}_forecasts.parquet"
    return _read_table(file) if file.exists() else None


def _read_table(file: "Path") -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_parquet(file)
    except Exception as error:  # whatever pyarrow makes of a damaged file
        raise BadInput(
            f"{file} is no table of forecasts ({error}): remove it and materialize comparison again"
        ) from error


def _pages(
    instance: dg.DagsterInstance, records: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, str]]:
    """By symbol where what made its records can be looked at: Dagster's runs, MLflow's."""
    pages: dict[str, dict[str, str]] = {}
    for name, keys in records.items():
        wanted = [str(key) for key in keys]
        if not wanted:
            continue
        asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), asset_partitions=wanted)
        made = instance.fetch_materializations(asked, limit=_MOST_RUNS).records
        for record in reversed(made):  # the latest comes last, and stays
            _, symbol = month_and_symbol(str(record.partition_key))
            found = pages.setdefault(symbol, {})
            found[name] = f"{DAGSTER_PAGE}/runs/{record.run_id}"
            made_by = record.asset_materialization
            link = made_by.metadata.get("mlflow") if made_by else None
            if isinstance(link, dg.UrlMetadataValue) and link.url:
                found[f"{name} in MLflow"] = link.url
    return pages
