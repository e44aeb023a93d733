"""Settings tried on selection origins: which of them are distinct, and how far each one errs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.comparison import window_at
from retrain_assets.evaluation.racing import Round
from retrain_assets.models.forecaster import Forecaster, Settings, SettingTraits, Window
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets.training.losses import NEGLIGIBLE
from retrain_assets.training.splits import Split

FEW_ORIGINS = 20
"""With fewer selection origins than this, the notes warn of the p value."""
INTERVAL = (0.1, 0.9)
"""Quantiles whose interval should hold 80 % of the closes."""


@dataclass(frozen=True)
class Entrants:
    """The distinct settings of a search; the default comes last unless it is one of them.

    settings, traits: of each entrant. first: for each setting as given, its entrant. default:
    the default's entrant. tried: the first so many entrants come from the settings as given.
    """

    settings: tuple[Settings, ...]
    traits: tuple[SettingTraits, ...]
    first: tuple[int, ...]
    default: int
    tried: int

    @classmethod
    def check(
        cls, forecaster: Forecaster, settings: Sequence[Settings], default: Settings
    ) -> Entrants:
        """Find the settings that are the same; raises BadInput for one that is out of range."""
        if not settings:
            raise BadInput("no settings to search: give at least one")
        all_traits = [forecaster.traits(setting) for setting in (*settings, default)]
        distinct: dict[tuple[object, ...], int] = {}
        places = [distinct.setdefault(traits.same, len(distinct)) for traits in all_traits]
        firsts = [places.index(place) for place in range(len(distinct))]
        return cls(
            settings=tuple((*settings, default)[i] for i in firsts),
            traits=tuple(all_traits[i] for i in firsts),
            first=tuple(places[:-1]),
            default=places[-1],
            tried=max(places[:-1]) + 1,
        )

    @property
    def groups(self) -> list[int]:
        """For each setting tried, the group that one computation serves."""
        numbers: dict[tuple[object, ...], int] = {}
        return [numbers.setdefault(t.shared, len(numbers)) for t in self.traits[: self.tried]]

    @property
    def notes(self) -> list[str]:
        """What is worth saying about the settings as given."""
        twins = len(self.first) - self.tried
        return [f"{twins} of {len(self.first)} settings are the same as others"] if twins else []

    @property
    def departures(self) -> NDArray[np.int64]:
        """In how many fields each setting tried differs from the default."""
        default = self.settings[self.default]
        each = [
            sum(one.get(name) != value for name, value in default.items())
            for one in self.settings[: self.tried]
        ]
        return np.array(each, dtype=np.int64)

    @property
    def costs(self) -> NDArray[np.int64]:
        """Cost of one forecast of each setting tried."""
        return np.array([traits.cost for traits in self.traits[: self.tried]], dtype=np.int64)

    def path_rows(self, entrants: NDArray[np.int64]) -> int:
        """Cost of forecasting one origin with these: of each group, the largest."""
        largest: dict[tuple[object, ...], int] = {}
        for traits in (self.traits[i] for i in entrants):
            largest[traits.shared] = max(largest.get(traits.shared, 0), traits.cost)
        return sum(largest.values())


@dataclass(frozen=True)
class SelectionOrigins:
    """What is forecast to choose: the windows, and the closes that came.

    windows: one per origin, ascending. actual: closes, (origin, step).
    """

    windows: tuple[Window, ...]
    actual: NDArray[np.float64]

    @classmethod
    def of(cls, bars: pd.DataFrame, split: Split, context: int) -> SelectionOrigins:
        """The split's selection origins; raises BadInput if the context starts too early."""
        if len(bars) != split.n_bars:
            raise ValueError(f"{len(bars)} bars for a split of {split.n_bars}")
        origins, days = split.holdout_origins("selection"), split.holdout_days
        if context > origins[0] + 1:
            raise BadInput(
                f"context is {context}: give at most {origins[0] + 1}, the bars up to the first "
                "selection origin"
            )
        close = bars["close"].to_numpy(dtype=np.float64)
        targets = np.add.outer(origins, np.arange(1, days + 1))
        windows = tuple(window_at(bars, origin, context, days) for origin in origins)
        return cls(windows, close[targets])

    @property
    def cutoffs(self) -> pd.DatetimeIndex:
        """Session of each origin."""
        return pd.DatetimeIndex([window.origin for window in self.windows], name="cutoff")


class Errors(NamedTuple):
    """How settings did on some origins, (origin, setting) each.

    loss, median_loss: mean absolute error over the steps of the mean and the median path, in
    price units. coverage: share of the steps whose close lies in the 80 % interval.
    computation: how the forecaster computed, in its own words.
    """

    loss: NDArray[np.float64]
    median_loss: NDArray[np.float64]
    coverage: NDArray[np.float64]
    computation: Mapping[str, float | int | str]


def errors(
    forecaster: Forecaster,
    selection: SelectionOrigins,
    origins: NDArray[np.int64],
    settings: Sequence[Settings],
    *,
    seed: int,
) -> Errors:
    """Forecast some of the selection origins with some settings, and compare with what came.

    origins: positions among the selection origins. Raises RetrainError naming setting and
    origin if a forecast is not finite.
    """
    windows = [selection.windows[i] for i in origins]
    forecast = forecaster.forecast(windows, settings, seed=seed)
    low, high = (forecast.quantiles[:, :, forecast.levels.index(level)] for level in INTERVAL)
    for values in (forecast.mean, forecast.median, low, high):
        broken = np.argwhere(~np.isfinite(values).all(axis=2))
        if len(broken):
            setting, window = broken[0]
            raise RetrainError(
                f"{forecaster.name} with {dict(settings[setting])} is not finite from origin "
                f"{windows[window].origin.date()}: the model or its adapter is broken; train it "
                "again"
            )
    actual = selection.actual[origins]
    inside = (low <= actual) & (actual <= high)
    return Errors(
        loss=np.abs(forecast.mean - actual).mean(axis=2).T,
        median_loss=np.abs(forecast.median - actual).mean(axis=2).T,
        coverage=inside.mean(axis=2).T,
        computation=forecast.computation,
    )


class Trials:
    """All that a search measured so far; `measure` answers the questions of a race.

    loss, median_loss, coverage: (origin, entrant) as in `Errors`, NaN where not measured.
    naive_loss: of naive, (origin,). path_rows: cost of all forecasts so far, in the family's
    unit. computations: how each call was computed, in order. The default is measured in every
    round, also when it is not in the race any more.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        selection: SelectionOrigins,
        entrants: Entrants,
        *,
        seed: int,
        report: Callable[[str], None],
    ) -> None:
        self.forecaster, self.selection, self.entrants = forecaster, selection, entrants
        self.seed, self.report = seed, report
        shape = (len(selection.windows), len(entrants.settings))
        self.loss, self.median_loss, self.coverage = (np.full(shape, np.nan) for _ in range(3))
        naive = errors(NaiveForecaster(), selection, np.arange(shape[0]), [{}], seed=seed)
        self.naive_loss = naive.loss[:, 0]
        self.path_rows = 0
        self.computations: list[dict[str, float | int | str]] = []

    def measure(self, asked: Round) -> NDArray[np.float64]:
        """Losses of the settings on the origins asked for, (origin, setting)."""
        entrants = np.union1d(asked.settings, [self.entrants.default])
        groups = len({self.entrants.traits[i].shared for i in asked.settings})
        self.report(
            f"round {asked.number}: {len(asked.settings)} settings in "
            f"{groups} {'group' if groups == 1 else 'groups'} on "
            f"{len(asked.origins)} of {len(self.selection.windows)} selection origins"
        )
        settings = [self.entrants.settings[i] for i in entrants]
        found = errors(self.forecaster, self.selection, asked.origins, settings, seed=self.seed)
        where = np.ix_(asked.origins, entrants)
        self.loss[where], self.median_loss[where] = found.loss, found.median_loss
        self.coverage[where] = found.coverage
        self.computations.append(dict(found.computation))
        self.path_rows += self.entrants.path_rows(entrants) * len(asked.origins)
        return self.loss[np.ix_(asked.origins, asked.settings)]

    def measure_all(self) -> None:
        """Measure every setting on all origins."""
        origins, settings = np.arange(len(self.loss)), np.arange(self.entrants.tried)
        self.measure(Round(1, origins, settings))

    def mae(self, entrant: int) -> float:
        """Mean loss over all origins, summed exactly, so that equal forecasts give equal bits."""
        return math.fsum(self.loss[:, entrant]) / len(self.loss)

    @property
    def notes(self) -> list[str]:
        """What the forecasts have shown of the settings."""
        tried = self.loss[:, : self.entrants.tried]
        complete = tried[:, ~np.isnan(tried).any(axis=0)]
        twins = complete.shape[1] - np.unique(complete, axis=1).shape[1]
        notes = [
            f"{name} has no effect: it moves no origin's error by {NEGLIGIBLE:.1%} of the mean"
            for name in without_effect(self.entrants.settings[: self.entrants.tried], tried)
        ]
        if len(self.loss) < FEW_ORIGINS:
            notes.append(
                f"with {len(self.loss)} selection origins the SPA p is too small too often: at 8 "
                "it is below .05 in a quarter of the searches where nothing is better"
            )
        if twins:
            notes.append(
                f"{twins} of the {complete.shape[1]} settings measured on all origins forecast "
                "them exactly as another does"
            )
        return notes


def without_effect(settings: Sequence[Settings], losses: NDArray[np.float64]) -> list[str]:
    """Names of the fields that move no loss by NEGLIGIBLE, among those with several values.

    losses: (origin, setting), NaN where not measured. Settings that differ in one field alone are
    compared, origin by origin; a field that no two such settings were measured for is not named.
    """
    names = {name: {one.get(name) for one in settings} for one in settings for name in one}
    found = []
    for name in (name for name, values in names.items() if len(values) > 1):
        rests: dict[tuple[object, ...], list[int]] = {}
        for i, one in enumerate(settings):
            rest = tuple(one.get(other) for other in names if other != name)
            rests.setdefault(rest, []).append(i)
        moves = [move for twins in rests.values() for move in _moves(losses[:, twins])]
        if moves and max(moves) < NEGLIGIBLE * np.nanmean(losses):
            found.append(name)
    return found


def _moves(losses: NDArray[np.float64]) -> list[float]:
    """Distance between the largest and smallest loss of each origin that has two or more."""
    several = losses[(~np.isnan(losses)).sum(axis=1) > 1]
    moves: list[float] = (np.nanmax(several, axis=1) - np.nanmin(several, axis=1)).tolist()
    return moves
