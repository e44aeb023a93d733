"""The code location: every asset, check, job and resource of the project, over one data folder."""

from __future__ import annotations

import dagster as dg

from retrain_assets.defs.adapters import adapters
from retrain_assets.defs.baseline import baseline_metrics
from retrain_assets.defs.checks import adapter_checks, params_checks
from retrain_assets.defs.comparison import comparison, comparison_summary
from retrain_assets.defs.holdout import params
from retrain_assets.defs.holdout_summary import params_summary
from retrain_assets.defs.market import bars_are_valid, market_bars
from retrain_assets.defs.resources import build_resources
from retrain_assets.home import Home

RETRAIN_STOCK = "retrain_stock"
SEARCH_PARAMS = "search_params"
SUMMARISE_MONTH = "summarise_month"


def build_definitions(home: Home, *, device: str = "auto") -> dg.Definitions:
    """Everything Dagster needs to know, reading and writing below one data folder."""
    searches, summaries = params(), [comparison_summary, params_summary]
    per_stock = [market_bars, baseline_metrics, *adapters(), *searches, comparison]
    return dg.Definitions(
        assets=[*per_stock, *summaries],
        asset_checks=[bars_are_valid, *adapter_checks(), *params_checks()],
        resources=build_resources(home, device=device),
        jobs=[
            dg.define_asset_job(
                RETRAIN_STOCK,
                selection=dg.AssetSelection.assets(*per_stock),
                description="One stock and month, from its bars to the comparison.",
            ),
            dg.define_asset_job(
                SEARCH_PARAMS,
                selection=dg.AssetSelection.assets(*searches),
                description="Inference parameters of adapters that are stored already.",
            ),
            dg.define_asset_job(
                SUMMARISE_MONTH,
                selection=dg.AssetSelection.assets(*summaries),
                description="One month's summaries over the stocks that are done.",
            ),
        ],
        # A run is one stock: its steps share one process, and the base model loads once.
        executor=dg.in_process_executor,
    )


defs = build_definitions(Home.find())
