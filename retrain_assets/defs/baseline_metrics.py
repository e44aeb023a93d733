"""Second stage: how hard a stock is, before any model sees it."""

from typing import Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.legible import legible
from retrain_assets.defs.partitions import month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Bars
from retrain_assets.operation import OWNERS


class BaselineConfig(dg.Config):
    """What one month and stock is asked to forecast; every later stage reads it here."""

    holdout_days: int = Field(7, ge=1, description="Sessions of one holdout forecast.")
    prediction_length: int | None = Field(
        None, ge=1, description="Bars to predict; by default the training policy's."
    )


@dg.asset(
    partitions_def=month_stock, group_name="baseline", kinds={"python", "pandas"}, owners=OWNERS
)
def baseline_metrics(
    context: dg.AssetExecutionContext,
    config: BaselineConfig,
    market_bars: PartitionBars,
    bars: Bars,
) -> dg.Output[dict[str, Any]]:
    """Errors of naive persistence, volatility and difficulty of one stock.

    Easy below 8 %, medium up to 15 %, hard above, by the error over 64 bars. What sets the
    training plan is computed on bars before the selection segment; the same figures over all
    bars stand beside it.
    """
    from retrain_assets.evaluation import baseline
    from retrain_assets.training import policy, splits

    count, calendar = len(market_bars.bars), market_bars.calendar
    with failing_plainly():
        given = config.prediction_length
        overrides = bars.stock(market_bars.symbol).overrides
        horizon = given or policy.prediction_length(count, overrides)
        start = splits.selection_start(count, horizon=horizon, holdout_days=config.holdout_days)
        figures = baseline.baseline_metrics(
            market_bars.bars,
            selection_start=start,
            periods_per_year=baseline.sessions_per_year(calendar),
        )
    asked = {
        "n_bars": count,
        "bars_hash": market_bars.hash,
        "holdout_days": config.holdout_days,
        "horizon": horizon,
    }
    tell(context, f"{figures['difficulty']}, naive error {figures['baseline_mae_pct']:.2f} %", 1.0)
    return dg.Output(
        asked | figures,
        metadata=legible(
            {
                "difficulty": figures["difficulty"],
                "naive error % at 64 bars": figures["baseline_mae_pct"],
                "over all bars": figures["guide_mae_pct"],
                "volatility % a year": figures["all_bars"]["volatility_annual_pct"],
                "prediction length": horizon,
            }
        ),
    )
