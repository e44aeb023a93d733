"""The code location: every asset, check, job, sensor and resource, over one data folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from retrain_assets.defs.adapters import adapters
from retrain_assets.defs.arrivals import build_new_bars
from retrain_assets.defs.automation import (
    build_drift_refinement,
    build_escalation,
    build_summaries,
    following,
)
from retrain_assets.defs.baseline_metrics import baseline_metrics
from retrain_assets.defs.champion import champion
from retrain_assets.defs.checks import adapter_checks, params_checks
from retrain_assets.defs.comparison import comparison
from retrain_assets.defs.comparison_summary import comparison_summary
from retrain_assets.defs.confirmation import confirmation
from retrain_assets.defs.fetching import fetch_bars, fetch_bars_when_due
from retrain_assets.defs.guide_files import guide_files
from retrain_assets.defs.live_performance import live_drift, live_performance
from retrain_assets.defs.market_bars import bars_are_valid, market_bars
from retrain_assets.defs.month_report import month_report
from retrain_assets.defs.params import params
from retrain_assets.defs.params_summary import params_summary
from retrain_assets.defs.refined import refinements
from retrain_assets.defs.regression_report import regression_report
from retrain_assets.defs.resources import build_resources
from retrain_assets.defs.schedule import build_month_end
from retrain_assets.engines import keep_engines
from retrain_assets.home import Home
from retrain_assets.warm import start_runs_warm

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

RETRAIN_STOCK = "retrain_stock"
SEARCH_PARAMS = "search_params"
COMPARE_STOCK = "compare_stock"
REFINE_STOCK = "refine_stock"
PROMOTE_STOCK = "promote_stock"
CONFIRM_STOCK = "confirm_stock"
SUMMARISE_MONTH = "summarise_month"

Assets = Sequence[dg.AssetsDefinition]


def build_definitions(home: Home, *, device: str = "auto") -> dg.Definitions:
    """Everything Dagster needs to know, reading and writing below one data folder."""
    searches, ladders = params(), refinements()
    told = [comparison_summary, params_summary, regression_report]
    summaries = following([*told, guide_files, month_report])
    decided = [comparison, champion]
    per_stock = [market_bars, baseline_metrics, *adapters(), *searches, *decided, live_performance]
    jobs = _jobs(per_stock, searches, [*ladders, *decided], summaries)
    named = {job.name: job for job in jobs}
    retrain, refine = named[RETRAIN_STOCK], named[REFINE_STOCK]
    return dg.Definitions(
        assets=[*per_stock, *ladders, confirmation, *summaries],
        asset_checks=[bars_are_valid, *adapter_checks(), *params_checks(), live_drift],
        resources=build_resources(home, device=device),
        jobs=[*jobs, fetch_bars],
        schedules=[build_month_end(retrain)],
        sensors=[
            build_new_bars(retrain),
            fetch_bars_when_due,
            build_summaries(summaries),
            build_escalation(refine),
            build_drift_refinement(refine),
        ],
        # A run is one stock: its steps share one process, and the base model loads once.
        executor=dg.in_process_executor,
    )


def _jobs(
    per_stock: Assets, searches: Assets, refined: Assets, summaries: Assets
) -> list[UnresolvedAssetJobDefinition]:
    return [
        _job(RETRAIN_STOCK, per_stock, "One stock and month, from its bars to what is promoted."),
        _job(SEARCH_PARAMS, searches, "Inference parameters of adapters that are stored already."),
        _job(COMPARE_STOCK, [comparison], "What is stored of a stock, compared; nothing else."),
        _job(REFINE_STOCK, refined, "The next rung of a stock's ladder, compared and decided on."),
        _job(
            PROMOTE_STOCK,
            [champion],
            "What is in production is decided on, or put back with `rollback_to`.",
        ),
        _job(CONFIRM_STOCK, [confirmation], "A suspicion looked at on a longer window."),
        _job(SUMMARISE_MONTH, summaries, "One month over the stocks that are done."),
    ]


def _job(name: str, assets: Assets, description: str) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name, selection=dg.AssetSelection.assets(*assets), description=description
    )


defs = build_definitions(Home.find())
keep_engines()
start_runs_warm()
