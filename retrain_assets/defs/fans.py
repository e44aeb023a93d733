"""Forecasts of a comparison against what came: small for the page, and the whole picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.markdown_images import embedded
from retrain_assets.defs.sparks import FIRST, INK, SECOND, spark

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from retrain_assets.evaluation.stock_record import StockRecord

_BEFORE = 20
"""Sessions that are shown before a forecast."""


def forecasts_shown(record: StockRecord, forecasts: pd.DataFrame) -> dict[str, Any]:
    """Metadata of a comparison's partition; empty where no family took part.

    forecasts: as `Comparison.forecasts`.
    """
    from retrain_assets.evaluation.monthly.facts import MonthFacts
    from retrain_assets.evaluation.monthly.figures import forecast

    if not record["candidates"]:
        return {}
    symbol = record["symbol"]
    facts = MonthFacts(record["month"], comparisons={symbol: record}, forecasts={symbol: forecasts})
    drawn = forecast(facts, symbol)
    if drawn is None:
        return {}
    return {
        "last forecast": dg.MetadataValue.md(_last(record, forecasts)),
        "all forecasts of the test": dg.MetadataValue.md(embedded(drawn)),
    }


def _last(record: StockRecord, forecasts: pd.DataFrame) -> str:
    """The newest forecast of up to two families, from the close that it was made at."""
    from retrain_assets.evaluation.monthly.figures import closes_of

    test = forecasts[forecasts["segment"] == "test"]
    rows = test[test["scope"] == "holdout"]
    newest = rows[rows["cutoff"] == rows["cutoff"].max()]
    closes = closes_of(test)
    place = {session: at for at, session in enumerate(closes.index)}
    origin, close = place[newest["cutoff"].iloc[0]], newest["origin_close"].iloc[0]
    last = place[newest["ds"].iloc[-1]]
    seen = slice(max(0, origin - _BEFORE), last + 1)
    lines: dict[str, tuple[ArrayLike, ArrayLike]] = {}
    lines[INK] = (range(len(closes))[seen], closes.to_numpy()[seen])
    told = []
    for color, word, (family, entry) in zip(
        (FIRST, SECOND), ("blue", "orange"), record["candidates"].items(), strict=False
    ):
        x = [origin, *(place[session] for session in newest["ds"])]
        lines[color] = (x, [close, *newest[entry["name"]]])
        told.append(f"{family} {word}")
    days = record["holdout_days"]
    return spark(
        lines,
        f"closes, and from {newest['cutoff'].iloc[0]:%Y-%m-%d} {days} sessions as "
        f"forecast: {', '.join(told)}",
    )
