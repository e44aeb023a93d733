"""Which inference settings suit a stock: tried on the selection origins, scored on the test.

Every setting forecasts the same non-overlapping selection origins; `choice.choose` picks one.
The lowest of many losses is too low by chance, so it is no score. The score is the chosen
setting's error on the test window, which is looked at once, after the choice, beside that of
the default setting and of naive.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation import metrics
from retrain_assets.evaluation.choice import choose, spa_p_value
from retrain_assets.evaluation.comparison import NAIVE, Candidate, Comparison, compare
from retrain_assets.evaluation.racing import Racing, decisive_order, race
from retrain_assets.evaluation.search_results import (
    CHOSEN,
    DEFAULT,
    losses_table,
    search_table,
    summarise,
    words,
)
from retrain_assets.evaluation.significance import origin_losses
from retrain_assets.evaluation.trials import Entrants, SelectionOrigins, Trials
from retrain_assets.models.forecaster import Forecaster, SearchSpace, Settings
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets.training.splits import Split

CPU_TOLERANCE = 1e-12
"""Relative. Forecasts repeat to the bit there, but means may be summed in another order."""
ACCELERATOR_TOLERANCE = 0.02
"""Relative. A batch of another shape may round otherwise, and a path that so takes another course
moves the mean error of 26 forecasts: by up to .6 % with 6 to 9 % of the paths of 5 moved."""


@dataclass(frozen=True)
class SearchResult:
    """What `search` found.

    table: one row per setting as given, a column for each of its fields, then
        `mae` (price units), `mae_pct`, `skill` (over naive), `mae_median` (of the median
        path) and `coverage_80`, all over the `origins` it was measured on;
        `dropped_in_round` (null if never); `same_as` (row of the first setting that gives the
        same forecast, null for the first); against the best setting `p_tie` (two-sided paired
        p) and `se_vs_best` (paired standard error, price units), null if dropped;
        `cost`, `tied`, `chosen`. Dropped settings saw the stormiest origins alone: compare
        them with others by skill, not by MAE.
    losses: mean absolute error in price units, one row per selection origin (index `cutoff`,
        its session), columns "0", "1", ... for the rows of the table, NaN where not measured,
        then `default` and `naive`.
    chosen, default: the settings.
    summary: JSON object: what `search_report.summarise` gives, and `spa_p_value` (of the best
        setting against the default, see `choice.spa_p_value`), `racing` (its rules, null if
        exhaustive) and `notes` (of the split, and on settings that are the same).
    scores: rows of `metrics.scores` for naive, default and chosen: selection, test, and test
        at the plan's horizon.
    measured: by the clock and by the machine: `seconds` of the search, `latency_s` of a forecast
        by candidate, `computations` of each round (for Kronos precision, rows at once, and how
        many of the bars drawn were computed).
    """

    table: pd.DataFrame
    losses: pd.DataFrame
    chosen: dict[str, Any]
    default: dict[str, Any]
    summary: dict[str, Any]
    scores: pd.DataFrame
    measured: dict[str, Any]


def expand(space: SearchSpace, *, subset: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """All combinations of a space, the last name varying fastest, or a random subset of them.

    subset: how many to draw without repetition, seeded; they keep the order of the whole. As
    many as there are, or more, takes all. Whether values are in range is for
    `Forecaster.traits` to say.

    Raises BadInput for an empty space, a name without values, a value given twice or of
    another kind than numbers, booleans and None, and a subset below 1.
    """
    if not space:
        raise BadInput("the search space is empty: give at least one setting with its values")
    for name, values in space.items():
        _check_values(name, values)
    shape = tuple(len(values) for values in space.values())
    total = math.prod(shape)
    if subset is not None and subset < 1:
        raise BadInput(f"subset is {subset}: give at least 1, or leave it out for all {total}")
    if subset is None or subset >= total:
        rows = itertools.product(*space.values())
        return [dict(zip(space, values, strict=True)) for values in rows]
    drawn = np.sort(np.random.default_rng(seed).choice(total, subset, replace=False))
    axes = zip(space.items(), np.unravel_index(drawn, shape), strict=True)
    columns = {name: [values[i] for i in places] for (name, values), places in axes}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check_values(name: str, values: Sequence[object]) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise BadInput(f"the search space has no values for {name!r}: give a list of them")
    for place, value in enumerate(values):
        if value is not None and not isinstance(value, int | float):
            raise BadInput(f"{name!r} has the value {value!r}: give numbers, true, false or null")
        if value in values[:place]:
            raise BadInput(f"{name!r} has the value {value!r} twice: give each once")


def search(
    bars: pd.DataFrame,
    split: Split,
    forecaster: Forecaster,
    settings: Sequence[Settings],
    *,
    default: Settings,
    context: int,
    symbol: str,
    seed: int,
    racing: Racing | None = None,
    device: str = "cpu",
    report: Callable[[str], None] | None = None,
) -> SearchResult:
    """Choose among settings on the selection origins, then score the choice on the test.

    bars: all bars up to the cut, as many as the split has. forecaster: its name becomes
    `<name>.default` and `<name>.chosen` in the scores. settings: what to try, in the table's
    order. default: what the choice has to beat; measured on all origins, and chosen only if it
    is among `settings`. context: bars to look back on. seed: of every forecast and of the
    bootstrap. racing: drop what cannot win any more; None measures everything. device: where
    the forecaster computes, which decides how closely its forecasts must repeat. report:
    called with a line of progress now and then.

    Raises BadInput before the first forecast for a setting out of range, for no settings and
    for a context longer than the history; RetrainError when a forecast is not finite, or when
    the forecasts that are scored are not those that were chosen by.
    """
    started = time.perf_counter()

    def tell(line: str) -> None:
        if report:
            report(f"{symbol}: {line}")

    entrants = Entrants.check(forecaster, settings, default)
    selection = SelectionOrigins.of(bars, split, context)
    trials = Trials(forecaster, selection, entrants, seed=seed, report=tell)
    run = race(
        trials.measure,
        groups=entrants.groups,
        order=decisive_order(trials.naive_loss),
        rules=racing,
        departures=entrants.departures,
    )
    tried = trials.loss[:, : entrants.tried]
    choice = choose(tried, entrants.costs, entrants.departures)
    chosen = entrants.settings[choice.chosen]
    tell(f"chosen: {words(chosen)}; now the test window is looked at, once")
    contenders = {DEFAULT: default, CHOSEN: chosen}
    candidates = _candidates(forecaster, contenders, context)
    compared = compare(bars, split, candidates, symbol=symbol, seed=seed, report=report)
    _check_repeated(compared, trials, choice.chosen, device)
    scores = metrics.scores(compared.forecasts, [candidate.name for candidate in candidates])
    summary = summarise(scores, trials, run, choice) | {
        "spa_p_value": spa_p_value(tried, trials.loss[:, entrants.default], seed=seed),
        "racing": racing.to_json() if racing else None,
        "notes": [*split.notes, *entrants.notes, *trials.notes],
    }
    return SearchResult(
        table=search_table(settings, trials, run, choice),
        losses=losses_table(trials),
        chosen=dict(chosen),
        default=dict(default),
        summary=summary,
        scores=scores,
        measured={
            "seconds": time.perf_counter() - started,
            "latency_s": compared.latency_s,
            "computations": trials.computations,
        },
    )


def _candidates(
    forecaster: Forecaster, settings: Mapping[str, Settings], context: int
) -> list[Candidate]:
    """Naive, and the forecaster once for each of the named settings."""
    return [
        Candidate(NAIVE, NaiveForecaster(), {}, context),
        *(
            Candidate(f"{forecaster.name}.{name}", forecaster, one, context)
            for name, one in settings.items()
        ),
    ]


def tolerance(device: str) -> float:
    """How far, relatively, an error may be from the same error computed in another call."""
    return CPU_TOLERANCE if device == "cpu" else ACCELERATOR_TOLERANCE


def _check_repeated(compared: Comparison, trials: Trials, chosen: int, device: str) -> None:
    """That the selection forecasts which are scored are those of the search."""
    for name, entrant in ((DEFAULT, trials.entrants.default), (CHOSEN, chosen)):
        column = f"{trials.forecaster.name}.{name}"
        losses = origin_losses(compared.forecasts, [column], segment="selection")
        scored = float(losses[column].mean())
        searched = trials.mae(entrant)
        if not math.isclose(scored, searched, rel_tol=tolerance(device)):
            raise RetrainError(
                f"{column} errs by {scored!r} on the selection origins when it is forecast alone, "
                f"but erred by {searched!r} beside other settings: a forecast must not depend on "
                "what else is in the call"
            )
