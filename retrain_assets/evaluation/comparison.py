"""All candidates forecast the same origins of one stock: the table every score is made from.

A candidate is a forecaster with its settings: a baseline, a base model as published, the base
with an adapter. Each sees, for every origin, the bars up to it and the sessions to forecast, and
nothing later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.models.forecaster import Forecast, Forecaster, Settings, Window
from retrain_assets.training.splits import Split

NAIVE = "naive"
"""Name of the candidate that all others are measured against."""
DRIFT = "drift"
AUTO_ETS = "auto_ets"
"""Names of the candidates that are no model's; naive has to be there, the others may."""

QUANTILES = {"/q10": 0.1, "/q25": 0.25, "/q75": 0.75, "/q90": 0.9}
"""Columns of a candidate's quantiles, by what follows its name, and their levels."""

GROUP = ["unique_id", "segment", "scope", "horizon"]
"""Columns of a table of forecasts that say which forecasts are scored together."""

LATENCY_CALLS = 5
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")

Variant = Literal["zero_shot", "adapter", "chosen", "refined", "last_month", "incumbent"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""Of a family: its base and this month's adapter with the published settings, that adapter with
the settings a search chose, the best rung of the ladder, last month's candidate, and the version
in production."""


@dataclass(frozen=True)
class Candidate:
    """One column of the comparison.

    name: of a baseline, or `<family>.<variant>` as `candidate_name` makes it.
    forecaster: what forecasts. settings: its inference parameters.
    context: bars it looks back on, at most those before the first origin.
    """

    name: str
    forecaster: Forecaster
    settings: Settings
    context: int


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured.

    forecasts: one row per origin and step in the shape utilsforecast reads. Columns:
        unique_id (symbol), segment (selection, test), scope (holdout: H sessions; plan: the
        plan's horizon), horizon (bars), cutoff (origin's session), ds (target's session),
        step (1 = first bar after the origin), origin_close, y (actual close), and for each
        candidate `<name>` (mean of its distribution), `<name>/median` and its quantiles
        `<name>/q10`, `<name>/q25`, `<name>/q75`, `<name>/q90`, all in price units.
    latency_s: seconds of one forecast of H bars from one origin by candidate, the median of
        five calls after a warm-up call.
    latency_p95_s: the 95 % quantile of the same five calls, linear between the slowest two.
    """

    forecasts: pd.DataFrame
    latency_s: dict[str, float]
    latency_p95_s: dict[str, float]


_Values = dict[str, NDArray[np.float64]]
"""Forecasts, (row of the table,), by what follows the candidate's name; "" for the mean."""


class Occasion(NamedTuple):
    """Forecasts of one kind; origins are positions of the last bar they may see."""

    segment: Literal["selection", "test"]
    scope: Literal["holdout", "plan"]
    horizon: int
    origins: tuple[int, ...]


def candidate_name(family: str, variant: Variant) -> str:
    """Name of a model family's candidate: `kronos.adapter`."""
    return f"{family}.{variant}"


def candidate_names(forecasts: pd.DataFrame) -> list[str]:
    """The candidates of a table of forecasts, in the order of its columns."""
    suffix = "/median"
    return [name.removesuffix(suffix) for name in forecasts.columns if name.endswith(suffix)]


def occasions(split: Split) -> tuple[Occasion, ...]:
    """What every candidate forecasts: selection and test at H sessions, test at the plan's h."""
    days = split.holdout_days
    return (
        Occasion("selection", "holdout", days, split.holdout_origins("selection")),
        Occasion("test", "holdout", days, split.holdout_origins("test")),
        Occasion("test", "plan", split.horizon, split.plan_origins()),
    )


def compare(
    bars: pd.DataFrame,
    split: Split,
    candidates: Sequence[Candidate],
    *,
    symbol: str,
    seed: int,
    report: Callable[[str], None] | None = None,
) -> Comparison:
    """Forecast every origin of the split with every candidate.

    bars: all bars up to the cut, as many as the split has. symbol: for the table and for
    messages. seed: of every forecast. report: called with a line of progress now and then.

    Candidates that must forecast the same, one forecaster with one context and settings that come
    down to the same, are forecast and timed once.

    Raises BadInput when naive is missing, a name is malformed or given twice, settings are not
    the model's, or a context is longer than the history; RetrainError when a forecast is not
    finite, naming candidate and origin.
    """
    _check(bars, split, candidates)
    tell = report or (lambda line: None)
    twins = _twins(candidates)
    firsts = [one for one in candidates if twins[one.name] == one.name]
    parts = []
    for occasion in occasions(split):
        values: dict[str, _Values] = {}
        for one in firsts:
            tell(
                f"{symbol}: {one.name} forecasts {len(occasion.origins)} "
                f"{occasion.segment} origins, {occasion.horizon} bars each"
            )
            values[one.name] = forecast_values(bars, occasion, one, symbol, seed)
        columns = {name + part: v for name, t in twins.items() for part, v in values[t].items()}
        parts.append(_targets(bars, occasion, symbol).assign(**columns))
    last = split.holdout_origins("test")[-1]
    seconds = {
        one.name: _seconds(one, window_at(bars, last, one.context, split.holdout_days), seed)
        for one in firsts
    }
    return Comparison(
        pd.concat(parts, ignore_index=True),
        latency_s={name: float(np.median(seconds[twin])) for name, twin in twins.items()},
        latency_p95_s={name: float(np.quantile(seconds[t], 0.95)) for name, t in twins.items()},
    )


def window_at(bars: pd.DataFrame, origin: int, context: int, horizon: int) -> Window:
    """The window a forecaster sees at an origin: a copy of its context, and future sessions.

    origin: position of the last bar to see. context, horizon: in bars. The sessions to
    forecast are those stored after the origin; only their labels are taken.
    """
    if context > origin + 1:
        raise BadInput(f"a context of {context} bars at origin {origin} starts before the history")
    past = bars.iloc[origin - context + 1 : origin + 1].reset_index(drop=True).copy()
    future = bars["session"].iloc[origin + 1 : origin + 1 + horizon]
    return Window(past, pd.DatetimeIndex(future, name=None))


def _check(bars: pd.DataFrame, split: Split, candidates: Sequence[Candidate]) -> None:
    if len(bars) != split.n_bars:
        raise ValueError(f"{len(bars)} bars for a split of {split.n_bars}")
    names = [candidate.name for candidate in candidates]
    if NAIVE not in names:
        raise BadInput(f"the candidates {names} lack {NAIVE!r}: every table shows it")
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            raise BadInput(f"candidate name {name!r} is malformed or given twice")


def _targets(bars: pd.DataFrame, occasion: Occasion, symbol: str) -> pd.DataFrame:
    """The columns that do not depend on a candidate, one row per origin and step."""
    steps = np.arange(1, occasion.horizon + 1)
    origin = np.repeat(occasion.origins, occasion.horizon)
    step = np.tile(steps, len(occasion.origins))
    session, close = bars["session"].to_numpy(), bars["close"].to_numpy()
    return pd.DataFrame(
        {
            "unique_id": symbol,
            "segment": occasion.segment,
            "scope": occasion.scope,
            "horizon": occasion.horizon,
            "cutoff": session[origin],
            "ds": session[origin + step],
            "step": step,
            "origin_close": close[origin],
            "y": close[origin + step],
        }
    )


def _twins(candidates: Sequence[Candidate]) -> dict[str, str]:
    """By name the first candidate that must forecast the same, which may be itself."""
    firsts: dict[tuple[object, ...], str] = {}
    return {
        one.name: firsts.setdefault(
            (id(one.forecaster), one.forecaster.traits(one.settings).same, one.context), one.name
        )
        for one in candidates
    }


def forecast_values(
    bars: pd.DataFrame, occasion: Occasion, candidate: Candidate, symbol: str, seed: int
) -> _Values:
    """One candidate's forecasts by the suffix of their column, shape (origin x step,).

    The suffixes are "" for the mean path, `/median`, and those of QUANTILES. Raises RetrainError
    where one is not finite, naming candidate and origin.
    """
    windows = [
        window_at(bars, origin, candidate.context, occasion.horizon) for origin in occasion.origins
    ]
    forecast = candidate.forecaster.forecast(windows, [candidate.settings], seed=seed)
    shape = (1, len(windows), occasion.horizon)
    if forecast.mean.shape != shape or forecast.median.shape != shape:
        raise ValueError(f"{candidate.name} forecast {forecast.mean.shape}, asked for {shape}")
    values = {"": forecast.mean[0], "/median": forecast.median[0]}
    values |= {suffix: _quantile(forecast, level) for suffix, level in QUANTILES.items()}
    for suffix, value in values.items():
        finite = np.isfinite(value).all(axis=1)
        if not finite.all():
            origin = windows[int(np.flatnonzero(~finite)[0])].origin
            raise RetrainError(
                f"{symbol}: {candidate.name}{suffix} is not finite from origin {origin.date()}: "
                "the model or its adapter is broken; train it again, or leave it out of the "
                "comparison"
            )
    return {suffix: value.ravel() for suffix, value in values.items()}


def _quantile(forecast: Forecast, level: float) -> NDArray[np.float64]:
    """One quantile of the only setting, shape (window, step)."""
    return np.asarray(forecast.quantiles[0, :, forecast.levels.index(level)])


def _seconds(candidate: Candidate, window: Window, seed: int) -> list[float]:
    """Seconds of five forecasts of one window, after one that is not counted."""
    seconds = []
    for _ in range(1 + LATENCY_CALLS):
        start = time.perf_counter()
        candidate.forecaster.forecast([window], [candidate.settings], seed=seed)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]
