"""Bars that a caller hands over for a forecast: well formed, of the right symbol, and recent.

The importer mends what needs no guessing and tells so; here nothing is mended, because nobody
would read what was told. Each check raises BadInput that says what to give instead.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BAR_COLUMNS, VALUE_COLUMNS
from retrain_assets.market.calendar import last_closed, sessions
from retrain_assets.market.schema import validate

Moment = str | dt.date | pd.Timestamp
"""A date, which means once its session has closed, or a moment with its time zone."""

WHERE = "the bars given"
# Vendors round, and adjust for dividends; a split or another currency goes beyond this.
_MOST_APART = 0.2
# Of two large US companies the daily moves differ by .6 to 1.6 times what either moves; one
# symbol's from two vendors hardly differ. Prices alone cannot tell AMZN of 2023 from GOOG.
_MOST_UNLIKE = 0.5
_MOVES_TO_COMPARE = 20
# Calendar days that surely hold a session, long holidays included.
_SESSION_WITHIN = pd.Timedelta(days=30)


def checked_bars(
    bars: pd.DataFrame, *, symbol: str, names: Collection[str], calendar: str
) -> pd.DataFrame:
    """Return `bars` as a bars frame of `symbol` if they are one (see `market.bars`).

    Columns may stand in any order, numbers may be of any type, and a column `symbol` may say
    whose they are: `symbol` or one of `names`, its other names, in either case. Rows are called
    by position, 0 = the first. Raises BadInput naming a missing or surplus column, or row,
    field, value and remedy of what cannot be right.
    """
    if not isinstance(bars, pd.DataFrame):
        raise BadInput(f"{WHERE} are a {type(bars).__name__}: give a pandas DataFrame")
    if missing := [name for name in BAR_COLUMNS if name not in bars.columns]:
        raise BadInput(
            f"{WHERE} have no column {', '.join(missing)}: give one row a session with the columns "
            f"{', '.join(BAR_COLUMNS)}, where session is the exchange-local date"
        )
    bars = bars.reset_index(drop=True)
    if "symbol" in bars.columns:
        _require_symbol(bars.pop("symbol"), {symbol, *names})
    others = [name for name in bars.columns if name not in BAR_COLUMNS]
    typed = _typed(bars[[*BAR_COLUMNS, *others]])
    return validate(typed, symbol=symbol, calendar=calendar, where=WHERE)


def _require_symbol(column: pd.Series, names: Collection[str]) -> None:
    known = {name.upper() for name in names}
    foreign = ~column.astype(str).str.strip().str.upper().isin(known)
    if foreign.any():
        row = int(np.flatnonzero(foreign)[0])
        raise BadInput(
            f"{WHERE}: row {row}, symbol: {column.iloc[row]} where only "
            f"{' or '.join(sorted(known))} can be forecast ({int(foreign.sum())} of "
            f"{len(column)} rows differ); give the bars of that symbol alone"
        )


def _typed(bars: pd.DataFrame) -> pd.DataFrame:
    """The same values in a bars frame's types, where they are dates and numbers of other types."""
    types = dict.fromkeys((n for n in VALUE_COLUMNS if bars.dtypes[n].kind in "iuf"), "float64")
    if bars.dtypes["session"].kind == "M" and bars["session"].dt.tz is None:
        types["session"] = "datetime64[ns]"
    return bars.astype(types)


def last_complete_session(calendar: str, as_of: Moment | None = None) -> pd.Timestamp:
    """The last session of `calendar` whose bar cannot change any more, by default as of now.

    Raises BadInput for what is neither a date nor a moment with a zone.
    """
    moment = _moment(as_of)
    if moment.tzinfo is None:
        return pd.Timestamp(sessions(calendar, moment - _SESSION_WITHIN, moment)[-1])
    return last_closed(calendar, moment)


def _moment(as_of: Moment | None) -> pd.Timestamp:
    """A date as naive midnight, or a moment with a zone."""
    if as_of is None:
        return pd.Timestamp(dt.datetime.now(dt.UTC))
    try:
        moment = pd.Timestamp(as_of)
    except (ValueError, TypeError) as error:
        raise BadInput(f"as_of is {as_of!r}: {_HOW}") from error
    if pd.isna(moment) or (moment.tzinfo is None and moment != moment.normalize()):
        raise BadInput(f"as_of is {as_of!r}: {_HOW}")
    return moment


_HOW = "give a date such as 2023-09-21, or a moment with its zone such as 2023-09-21T21:00:00+00:00"


def require_fresh(
    bars: pd.DataFrame, *, symbol: str, calendar: str, as_of: Moment | None, most_missed: int
) -> None:
    """Raise BadInput if bars end too early for a forecast as of a moment, or after it.

    bars: checked, of `symbol`. as_of: by default now. most_missed: sessions that may have been
    completed since the last bar.
    """
    last, complete = bars["session"].iloc[-1], last_complete_session(calendar, as_of)
    when = "now" if as_of is None else f"as of {as_of}"
    if last > complete:
        raise BadInput(
            f"{WHERE} of {symbol} end {last:%Y-%m-%d}, but {when} the last complete session is "
            f"that of {complete:%Y-%m-%d}: leave out the bars after it, which are not final or "
            "not yet known then"
        )
    missed = len(sessions(calendar, last, complete)) - 1
    if missed > most_missed:
        raise BadInput(
            f"{WHERE} of {symbol} are stale: they end {last:%Y-%m-%d}, and {when} the last "
            f"complete session is that of {complete:%Y-%m-%d}, {missed} sessions later, of which "
            f"at most {most_missed} may be missing; give newer bars, or the as_of that you mean"
        )


def require_same_series(bars: pd.DataFrame, stored: pd.DataFrame, *, symbol: str) -> str | None:
    """Raise BadInput if bars disagree with the stored ones on their common sessions.

    bars, stored: frames with session and close. They disagree when closes are over 20 % apart at
    the median, or when, at the median too, a close's move differs by over half of what the
    stored close moves. Returns a note if there is no common session, else None.
    """
    common = bars[["session", "close"]].merge(
        stored[["session", "close"]], on="session", suffixes=("", "_stored")
    )
    if common.empty:
        return f"{WHERE} share no session with stored ones, so nothing shows that they are {symbol}"
    apart = float((common["close"] / common["close_stored"] - 1).abs().median())
    move, known = (np.diff(np.log(common[name])) for name in ("close", "close_stored"))
    other = len(move) >= _MOVES_TO_COMPARE and bool(
        np.median(np.abs(move - known)) > _MOST_UNLIKE * np.median(np.abs(known))
    )
    if not other and apart <= _MOST_APART:
        return None
    latest = common.iloc[-1]
    raise BadInput(
        f"{WHERE} are not those of {symbol}, or not on its scale: on {len(common)} sessions that "
        f"are stored too, closes are {100 * apart:.0f} % apart at the median"
        f"{' and move differently' if other else ''} (on {latest['session']:%Y-%m-%d} "
        f"{latest['close']:.10g}, stored {latest['close_stored']:.10g}). Check symbol, currency "
        "and adjustment for splits; if the stored ones are out of date, import them again with "
        "`retrain import FILE --replace`"
    )
