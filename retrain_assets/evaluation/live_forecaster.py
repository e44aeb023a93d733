"""A version in memory, which forecasts from bars that a caller gives: the use of it all.

Nothing is written, and nothing is read after loading. Naive takes no one's place unasked: its
path stands beside every forecast, and its intervals are one attribute away.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version, version_forecaster
from retrain_assets.market.calendar import next_sessions, session_close, sessions
from retrain_assets.market.given import (
    Moment,
    checked_bars,
    last_complete_session,
    require_fresh,
    require_same_series,
)
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    Forecaster,
    ModelLimits,
    Window,
    family,
)
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets.training.splits import capped_context

if TYPE_CHECKING:
    from retrain_assets.market.bars import BarStore
    from retrain_assets.training.adapter_store import ModelStore

MAX_AGE_SESSIONS = 3
"""Sessions that may be missing at the end of the bars, unless told otherwise."""
NAIVE_BARS = 256
"""Bars, at most, from which naive takes how far a close moves; its path needs the last alone."""

_MEDIAN = 0.5
QUANTILES = {f"q{round(100 * one)}": one for one in QUANTILE_LEVELS if one != _MEDIAN}
PRICES = ("mean", "median", *QUANTILES, NAIVE)
COLUMNS = ("session", "close_time", *PRICES)
"""Columns of a live forecast."""


@dataclass(frozen=True, eq=False)
class LiveForecaster:
    """A version of one symbol in memory; threads may share it.

    symbol, calendar: whose closes, on whose sessions. names: other names of the symbol.
    version: what forecasts. source: the same in words, and why, where nothing was promoted.
    history: the stored bars as they were when it was loaded, None if there were none; bars to
    forecast from are held against them. limits: of the base, None for naive.
    max_age_sessions: sessions that may be missing at the end of the bars. threads: CPU threads
    of torch; None leaves them as they are.
    """

    symbol: str
    calendar: str
    names: tuple[str, ...]
    version: Version
    source: str
    history: pd.DataFrame | None = field(repr=False)
    forecaster: Forecaster = field(repr=False)
    limits: ModelLimits | None
    max_age_sessions: int = MAX_AGE_SESSIONS
    threads: int | None = 1
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @classmethod
    def load(
        cls,
        version: Version,
        *,
        symbol: str,
        calendar: str,
        names: Collection[str],
        bars: BarStore,
        store: ModelStore,
        checkpoints: Path,
        source: str = "",
        device: str = "cpu",
        max_age_sessions: int = MAX_AGE_SESSIONS,
        threads: int | None = 1,
    ) -> LiveForecaster:
        """Load a version. bars: the bar store. store: of adapters. checkpoints: of base models.

        Raises BadInput for an unknown calendar, and CheckpointError, saying which file is gone or
        altered, when base or adapter are not those of the version.
        """
        forecaster = version_forecaster(
            version, name=version.family, store=store, checkpoints=checkpoints, device=device
        )
        limits = None
        if version.family != NAIVE:
            limits = family(version.family).limits(version.base, checkpoints=checkpoints)
        history = bars.read(symbol) if bars.has(symbol) else None
        # A calendar takes half a second to build, for which the first forecast should not wait.
        complete = last_complete_session(calendar)
        if history is not None:
            sessions(calendar, history["session"].iloc[0], complete)
        return cls(
            symbol=symbol,
            calendar=calendar,
            names=tuple(names),
            version=version,
            source=source or version.title,
            history=history,
            forecaster=forecaster,
            limits=limits,
            max_age_sessions=max_age_sessions,
            threads=threads,
        )

    @property
    def naive(self) -> LiveForecaster:
        """Naive for the same symbol, with intervals of its own, for whoever wants a fallback."""
        return replace(
            self, version=NAIVE_VERSION, source=NAIVE, forecaster=NaiveForecaster(), limits=None
        )

    def predict(
        self, bars: pd.DataFrame, horizon: int, *, as_of: Moment | None = None
    ) -> pd.DataFrame:
        """Forecast the closes of the `horizon` sessions that follow the last bar.

        bars: columns as in the bar store, one row a session, all of them over; a column `symbol`
        is checked if there is one. The last `version.context` of them are used. as_of: a date,
        which means once its session has closed, or a moment with its zone; by default now.

        Returns one row a future session of the symbol's calendar with `COLUMNS`: session (the
        exchange-local date), close_time (when its bar is final, UTC), and in price units mean,
        median, quantiles at 10, 25, 75 and 90 %, and naive, the last close carried forward.
        `attrs` says symbol, origin (session of the last bar), source, version (its id), month
        and adapter (its digest, None without one), context (bars used), and notes on what was
        cut or could not be checked.

        Raises BadInput, saying what to give instead, for bars that are malformed, stale, not yet
        final, too few or of another symbol, and for a horizon that does not fit the model;
        RetrainError for a forecast that is not finite.
        """
        if not isinstance(horizon, int | np.integer) or horizon < 1:
            raise BadInput(f"horizon is {horizon!r}: give a whole number of sessions, at least 1")
        given, notes = self._checked(bars, as_of)
        context = self._context(int(horizon), len(given), notes)
        past = given.iloc[-context:].reset_index(drop=True)
        future = next_sessions(self.calendar, past["session"].iloc[-1], int(horizon))
        table = self._table(Window(past, future))
        adapter = self.version.adapter
        table.attrs = {
            "symbol": self.symbol,
            "origin": f"{past['session'].iloc[-1]:%Y-%m-%d}",
            "source": self.source,
            "version": self.version.id,
            "month": self.version.month,
            "adapter": None if adapter is None else adapter["digest"],
            "context": context,
            "notes": notes,
        }
        return table

    def _checked(self, bars: pd.DataFrame, as_of: Moment | None) -> tuple[pd.DataFrame, list[str]]:
        """The bars if they may be forecast from, and what could not be checked."""
        symbol, calendar = self.symbol, self.calendar
        given = checked_bars(bars, symbol=symbol, names=self.names, calendar=calendar)
        most = self.max_age_sessions
        require_fresh(given, symbol=symbol, calendar=calendar, as_of=as_of, most_missed=most)
        if self.history is None:
            return given, [f"no bars of {symbol} are stored to hold these against"]
        note = require_same_series(given, self.history, symbol=symbol)
        return given, [note] if note else []

    def _context(self, horizon: int, given: int, notes: list[str]) -> int:
        """Bars to look back on; a cut for the horizon's sake is added to the notes."""
        if self.limits is None:
            return min(given, NAIVE_BARS)
        context = self.version.context
        if context + horizon > self.limits.max_context:
            context, note = capped_context(context, horizon, self.limits)
            notes += [note] if note else []
        if given < context:
            raise BadInput(
                f"the {self.source} looks back on {context} bars of {self.symbol}, and {given} "
                f"were given: give at least the last {context}"
            )
        return context

    def _table(self, window: Window) -> pd.DataFrame:
        """The forecast of a window, one row a session; RetrainError if it is not finite."""
        prices = self._forecast(window)
        columns = {
            "mean": prices.mean[0, 0],
            "median": prices.median[0, 0],
            **{
                name: prices.quantiles[0, 0, prices.levels.index(level)]
                for name, level in QUANTILES.items()
            },
            NAIVE: np.full(len(window.future_sessions), window.origin_close),
        }
        if not all(np.isfinite(values).all() for values in columns.values()):
            raise RetrainError(
                f"the {self.source} forecasts values of {self.symbol} that are not finite from "
                f"{window.origin:%Y-%m-%d}: use `naive` of this forecaster, and retrain the month"
            )
        closes = [session_close(self.calendar, session) for session in window.future_sessions]
        when = {"session": window.future_sessions, "close_time": pd.DatetimeIndex(closes)}
        return pd.DataFrame(when | columns, columns=list(COLUMNS))

    def _forecast(self, window: Window) -> Forecast:
        # One at a time: a model keeps caches, and switches its modules to evaluation and back.
        with self._lock:
            if self.threads is not None and self.limits is not None:
                _use_threads(self.threads)
            settings = [self.version.settings]
            return self.forecaster.forecast([window], settings, seed=self.version.seed)


def _use_threads(threads: int) -> None:
    """Let torch use so many CPU threads in this process from here on."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
