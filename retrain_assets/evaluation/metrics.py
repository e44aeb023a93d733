"""Scores of every candidate on the same origins, from the table that `compare` writes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from utilsforecast.losses import coverage, mae, nd, rmae, rmse

from retrain_assets.evaluation.comparison import GROUP, NAIVE


def scores(forecasts: pd.DataFrame, candidates: Sequence[str]) -> pd.DataFrame:
    """One row per symbol, segment, scope, horizon and candidate, in the table's order.

    forecasts: table of `Comparison.forecasts`, of one symbol or several. candidates: names
    to score. Columns beside the five keys, errors pooled over all origins and steps:

    - `origins`: forecasts scored;
    - `mae`, `rmse`: of the mean path, in price units; `mae_median`: of the median path;
    - `mae_pct`: 100 x MAE / mean actual close;
    - `return_mae`: mean of |error| / close at the origin, a fraction;
    - `skill`: 1 - sum of errors / sum of naive errors; NaN where naive never errs;
    - `coverage_80`: share of actual closes between the 10 % and 90 % quantiles.
    """
    names = list(candidates)
    frame = forecasts.assign(group=forecasts.groupby(GROUP, sort=False).ngroup())
    frame = frame.rename(columns=_interval_names(names))
    # Without the origins as `cutoff` column, utilsforecast pools them.
    point = frame[["group", "y", *dict.fromkeys([*names, NAIVE])]]
    median = frame[["group", "y"]].assign(**{n: frame[f"{n}/median"] for n in names})
    relative = point.assign(
        **{c: frame[c] / frame["origin_close"] for c in point.columns if c != "group"}
    )
    interval = frame.drop(columns="cutoff")
    tables = {
        "mae": mae(point, names, id_col="group"),
        "mae_median": mae(median, names, id_col="group"),
        "mae_pct": nd(point, names, id_col="group"),
        "return_mae": mae(relative, names, id_col="group"),
        "rmse": rmse(point, names, id_col="group"),
        "skill": rmae(point, names, baseline=NAIVE, id_col="group"),
        "coverage_80": coverage(interval, names, 80, id_col="group"),
    }
    scored = pd.concat([_long(table, name) for name, table in tables.items()], axis="columns")
    scored["mae_pct"] *= 100
    scored["skill"] = 1 - scored["skill"]
    keys = frame.groupby("group").agg(
        **{key: (key, "first") for key in GROUP}, origins=("cutoff", "nunique")
    )
    joined: pd.DataFrame = scored.reset_index().join(keys, on="group")
    return joined[[*GROUP, "candidate", "origins", *tables]]


def _long(table: pd.DataFrame, metric: str) -> pd.Series[float]:
    """One metric by (group, candidate), groups in order and candidates within them."""
    long = table.melt(id_vars="group", var_name="candidate", value_name=metric)
    series: pd.Series[float] = long.set_index(["group", "candidate"])[metric]
    return series.sort_index(level="group", sort_remaining=False, kind="stable")


def _interval_names(names: Sequence[str]) -> dict[str, str]:
    """Our quantile columns under the names utilsforecast looks for."""
    lows = {f"{name}/q10": f"{name}-lo-80" for name in names}
    return lows | {f"{name}/q90": f"{name}-hi-80" for name in names}
