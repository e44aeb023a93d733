"""How hard a stock is before any model sees it: naive persistence errors and volatility.

Naive persistence carries the last close forward. Its error over 64 bars, in % of the mean
close of the whole history, is the guide's "baseline MAE %" and sets the difficulty. That
figure moves when the price level does, so a scale-free one stands beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.errors import BadInput, NotEnoughBars
from retrain_assets.training.policy import difficulty

HORIZONS = (16, 32, 64, 128)
"""Bars ahead at which persistence is scored."""
DIFFICULTY_HORIZON = 64


def naive_block_mae(close: NDArray[np.float64], horizon: int) -> float:
    """Mean absolute error of persistence over non-overlapping blocks of the whole history.

    close: closes in price units, shape (bar,). The last close of each block of `horizon` bars
    is the forecast of every bar of the next block; the last block may be partial. The first
    block has no forecast, so len(close) - horizon errors are averaged, in price units.

    Raises NotEnoughBars when len(close) <= horizon. Formula: `baseline_eval_simple.py` of
    the scripts behind the guide.
    """
    errors, _ = _block_errors(close, horizon)
    return float(errors.mean())


def naive_block_scale_free_pct(close: NDArray[np.float64], horizon: int) -> float:
    """The same errors, each in % of the close it was forecast from, averaged.

    Multiplying the series by a constant, or a long rise of the price, leaves it alone.
    Raises like `naive_block_mae`.
    """
    errors, origins = _block_errors(close, horizon)
    return float(100 * (errors / origins).mean())


def _block_errors(
    close: NDArray[np.float64], horizon: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Absolute errors and the closes they were forecast from, shape (bar - horizon,) each."""
    if len(close) <= horizon:
        raise NotEnoughBars(
            f"naive persistence over {horizon} bars needs {horizon + 1} bars, has {len(close)}"
        )
    targets = np.arange(horizon, len(close))
    origins = close[targets // horizon * horizon - 1]
    return np.abs(close[targets] - origins), origins


def baseline_metrics(
    bars: pd.DataFrame, *, selection_start: int, periods_per_year: int
) -> dict[str, Any]:
    """Everything the baseline tells about one stock, as a JSON object.

    bars: all bars up to the cut. selection_start: position of the first selection bar (see
    `splits.selection_start`). periods_per_year: sessions of a year, 252 or 365.

    Keys of the result:

    - `difficulty`, `baseline_mae_pct`: from bars before the selection; they set the plan;
    - `guide_difficulty`, `guide_mae_pct`: the guide's own, over all bars to the cut;
    - `before_selection`, `all_bars`: the figures behind them (see `history_figures`);
    - `selection_start`, `periods_per_year`: as given.

    Raises NotEnoughBars when there is no 64-bar error before the selection, BadInput for a
    close that is not above 0.
    """
    close = bars["close"].to_numpy(dtype=np.float64)
    if not (close > 0).all():
        row = int(np.flatnonzero(~(close > 0))[0])
        raise BadInput(f"row {row} ({bars['session'].iloc[row]}): close is {close[row]}, not > 0")
    if selection_start <= DIFFICULTY_HORIZON:
        raise NotEnoughBars(
            f"the difficulty needs {DIFFICULTY_HORIZON + 1} bars before the selection segment, "
            f"has {selection_start}: import older bars"
        )
    before = history_figures(close[:selection_start], periods_per_year=periods_per_year)
    all_bars = history_figures(close, periods_per_year=periods_per_year)
    key = f"h{DIFFICULTY_HORIZON}_pct"
    return {
        "difficulty": difficulty(before[key]),
        "baseline_mae_pct": before[key],
        "guide_difficulty": difficulty(all_bars[key]),
        "guide_mae_pct": all_bars[key],
        "selection_start": selection_start,
        "periods_per_year": periods_per_year,
        "before_selection": before,
        "all_bars": all_bars,
    }


def history_figures(close: NDArray[np.float64], *, periods_per_year: int) -> dict[str, Any]:
    """Figures of one stretch of closes, as a JSON object.

    - `count`, `mean`, `std`, `min`, `max`: of the closes (population std, price units);
    - `h16`: persistence error at 16 bars in price units; `h16_pct`: in % of the mean close;
      `h16_scale_free_pct`: each error in % of its own origin; likewise 32, 64 and 128;
    - `volatility_daily_pct`, `volatility_annual_pct`: sample sd of log returns, and that
      times the root of `periods_per_year`;
    - `unavailable`: why a figure above is null, by its name.

    close: shape (bar,), all above 0.
    """
    figures: dict[str, Any] = {"count": len(close), "mean": float(close.mean())}
    figures |= {"std": float(close.std()), "min": float(close.min()), "max": float(close.max())}
    unavailable: dict[str, str] = {}
    for horizon in HORIZONS:
        name = f"h{horizon}"
        try:
            mae = naive_block_mae(close, horizon)
        except NotEnoughBars as error:
            unavailable[name] = str(error)
            figures |= {name: None, f"{name}_pct": None, f"{name}_scale_free_pct": None}
            continue
        scale_free = naive_block_scale_free_pct(close, horizon)
        figures[name] = mae
        figures[f"{name}_pct"] = 100 * mae / figures["mean"]
        figures[f"{name}_scale_free_pct"] = scale_free
    daily = _volatility_pct(close)
    if daily is None:
        unavailable["volatility"] = f"volatility needs 3 bars, has {len(close)}"
    figures["volatility_daily_pct"] = daily
    figures["volatility_annual_pct"] = None if daily is None else daily * periods_per_year**0.5
    return figures | {"unavailable": unavailable}


def sessions_per_year(calendar: str) -> int:
    """Sessions of a year: 365 for the 24/7 calendar, 252 for exchanges."""
    return 365 if calendar == "24/7" else 252


def _volatility_pct(close: NDArray[np.float64]) -> float | None:
    if len(close) < 3:
        return None
    return float(100 * np.diff(np.log(close)).std(ddof=1))
