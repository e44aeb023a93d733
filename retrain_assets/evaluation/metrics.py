"""Scores of every candidate on the same origins, from the table that `compare` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from utilsforecast.losses import coverage, mae, nd, rmae, rmse

from retrain_assets.evaluation.comparison import GROUP, NAIVE, QUANTILES
from retrain_assets.evaluation.pooling import skill_interval
from retrain_assets.evaluation.significance import origin_losses
from retrain_assets.training.splits import Split

SCORES = (
    *("mae", "mae_median", "mae_pct", "return_mae", "mase", "rmse", "crps"),
    *("skill", "skill_low", "skill_high", "coverage_80"),
)
"""Columns of `scores` beside the keys, the candidate and the number of origins."""
_LEVELS = {"/median": 0.5} | QUANTILES
"""Columns of the quantiles that CRPS is made of, and their levels."""


def scores(
    forecasts: pd.DataFrame,
    candidates: Sequence[str],
    *,
    scale: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """One row per symbol, segment, scope, horizon and candidate, in the table's order.

    forecasts: table of `Comparison.forecasts`, of one symbol or several. candidates: names
    to score. scale: by symbol what MASE divides by, as `one_step_scale` gives it. Columns beside
    the five keys, errors pooled over all origins and steps:

    - `origins`: forecasts scored;
    - `mae`, `rmse`: of the mean path, in price units; `mae_median`: of the median path;
    - `mae_pct`: 100 x MAE / mean actual close;
    - `return_mae`: mean of |error| / close at the origin, a fraction;
    - `mase`: MAE / scale; NaN for a symbol without one, or one whose scale is 0;
    - `crps`: of the whole distribution, in price units, approximated from the five quantiles
        of the table as twice their mean pinball loss (scoringrules). For a distribution that
        is one point it is the absolute error;
    - `skill`: 1 - sum of errors / sum of naive errors; NaN where naive never errs;
    - `skill_low`, `skill_high`: 95 % bootstrap interval of skill over the origins
        (`pooling.skill_interval`); NaN in plan scope, whose origins overlap, and where there is
        no interval, as with fewer than 8 origins;
    - `coverage_80`: share of actual closes between the 10 % and 90 % quantiles.
    """
    names = list(candidates)
    frame = forecasts.assign(group=forecasts.groupby(GROUP, sort=False).ngroup())
    # Without the origins as `cutoff` column, utilsforecast pools them.
    point = frame[["group", "y", *dict.fromkeys([*names, NAIVE])]]
    median = frame[["group", "y"]].assign(**{n: frame[f"{n}/median"] for n in names})
    relative = point.assign(
        **{c: frame[c] / frame["origin_close"] for c in point.columns if c != "group"}
    )
    interval = frame.drop(columns="cutoff").rename(columns=_interval_names(names))
    tables = {
        "mae": mae(point, names, id_col="group"),
        "mae_median": mae(median, names, id_col="group"),
        "mae_pct": nd(point, names, id_col="group"),
        "return_mae": mae(relative, names, id_col="group"),
        "rmse": rmse(point, names, id_col="group"),
        "crps": _crps(frame, names),
        "skill": rmae(point, names, baseline=NAIVE, id_col="group"),
        "coverage_80": coverage(interval, names, 80, id_col="group"),
    }
    scored = pd.concat([_long(table, name) for name, table in tables.items()], axis="columns")
    scored = scored.join(_skill_intervals(frame, names))
    scored["mae_pct"] *= 100
    scored["skill"] = 1 - scored["skill"]
    keys = frame.groupby("group").agg(
        **{key: (key, "first") for key in GROUP}, origins=("cutoff", "nunique")
    )
    joined: pd.DataFrame = scored.reset_index().join(keys, on="group")
    joined["mase"] = joined["mae"] / joined["unique_id"].map(scale or {}).replace(0, np.nan)
    columns = [*GROUP, "candidate", "origins", *SCORES]
    if unnamed := set(joined.columns) - {"group", *columns}:
        raise ValueError(f"SCORES does not name {', '.join(sorted(unnamed))}")
    return joined[columns]


def one_step_scale(bars: pd.DataFrame, split: Split) -> float:
    """What MASE divides by: the mean absolute change of the close from bar to bar, price units.

    bars: all bars of the split. Only those before its first selection target count, so that no
    bar an error is taken on, least of all one of the test, is in the scale; it is the same for
    every origin, candidate and horizon. 0 where the close never changes.

    Source: Hyndman and Koehler, Another look at measures of forecast accuracy (2006).
    """
    close = bars["close"].to_numpy(dtype=np.float64)[: split.selection.start]
    return float(np.abs(np.diff(close)).mean())


def origin_table(
    forecasts: pd.DataFrame,
    candidates: Sequence[str],
    *,
    segment: Literal["selection", "test"],
) -> dict[str, list[Any]]:
    """Losses of one stock's holdout forecasts as JSON values, one an origin, ascending.

    forecasts: table of `Comparison.forecasts` of one symbol. Holds `cutoff` (the origin's
    session, `2023-06-01`), `origin_close`, and by candidate the mean absolute error of its mean
    path in price units. `pooling.relative_losses` reads it.
    """
    if len(forecasts["unique_id"].unique()) != 1:
        raise ValueError("a table of losses is about one symbol")
    losses = origin_losses(forecasts, candidates, segment=segment).droplevel("unique_id")
    closes = forecasts.groupby("cutoff")["origin_close"].first()
    table: dict[str, list[Any]] = {
        "cutoff": [f"{cutoff:%Y-%m-%d}" for cutoff in losses.index],
        "origin_close": closes[losses.index].tolist(),
    }
    return table | {name: losses[name].tolist() for name in candidates}


def _crps(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Mean CRPS by group and candidate, in the shape of utilsforecast's tables."""
    from scoringrules import crps_quantile

    levels, actual = np.array(list(_LEVELS.values())), frame["y"].to_numpy(dtype=np.float64)
    found = frame[["group"]].assign(
        **{
            name: crps_quantile(
                actual,
                frame[[name + part for part in _LEVELS]].to_numpy(dtype=np.float64),
                levels,
                backend="numpy",
            )
            for name in names
        }
    )
    return found.groupby("group", as_index=False).mean()


def _skill_intervals(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Columns skill_low and skill_high, rows by group and candidate; NaN where there is none."""
    ends: dict[tuple[int, str], tuple[float, float]] = {}
    for group in frame["group"].unique().tolist():
        rows = frame[frame["group"] == group]
        errors = rows[list(dict.fromkeys([*names, NAIVE]))].sub(rows["y"], axis="index").abs()
        losses = errors.groupby(rows["cutoff"]).mean()
        apart = (rows["scope"] == "holdout").all()
        for name in names:
            found = skill_interval(losses[name], losses[NAIVE]) if apart else None
            ends[group, name] = found or (np.nan, np.nan)
    index = pd.MultiIndex.from_tuples(list(ends), names=["group", "candidate"])
    return pd.DataFrame([*ends.values()], index, columns=["skill_low", "skill_high"])


def _long(table: pd.DataFrame, metric: str) -> pd.Series[float]:
    """One metric by (group, candidate), groups in order and candidates within them."""
    long = table.melt(id_vars="group", var_name="candidate", value_name=metric)
    series: pd.Series[float] = long.set_index(["group", "candidate"])[metric]
    return series.sort_index(level="group", sort_remaining=False, kind="stable")


def _interval_names(names: Sequence[str]) -> dict[str, str]:
    """Our quantile columns under the names utilsforecast looks for."""
    lows = {f"{name}/q10": f"{name}-lo-80" for name in names}
    return lows | {f"{name}/q90": f"{name}-hi-80" for name in names}
