"""What bars must satisfy (a pandera schema) and what merely looks odd in them.

`validate` refuses bars that cannot be right; `warnings` lists what a person should look at
in bars that can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BAR_COLUMNS
from retrain_assets.market.calendar import sessions
from retrain_assets.market.jumps import find_jumps

PRICE_COLUMNS = ("open", "high", "low", "close")
# How many failures an error spells out; the rest are counted.
SHOWN = 5
# Sessions in a row without any volume from which on a person should look.
QUIET_SESSIONS = 5
# A move beyond this factor within a session is worth a look, though it may be real.
_LARGE_MOVE = 1.5


@dataclass(frozen=True)
class _Rule:
    """What the schema's check says of a failing row, which field it blames, and the way out."""

    says: str
    remedy: str
    field: str = ""


_FIX_ROW = "correct the row at its source or remove it, then import again"
_SWAPPED = f"are columns swapped? {_FIX_ROW}"
_RULES = {
    "not_nullable": _Rule("is empty or no number", _FIX_ROW),
    "finite": _Rule("is not finite", _FIX_ROW),
    "positive": _Rule("is not above 0", _FIX_ROW),
    "not_negative": _Rule("is below 0", _FIX_ROW),
    "lowest": _Rule("is above the row's open, high or close", _SWAPPED, "low"),
    "highest": _Rule("is below the row's open, low or close", _SWAPPED, "high"),
    "midnight": _Rule("is no midnight", "give daily bars, stamped with the session's date"),
    "unique": _Rule("occurs twice", "keep one of the rows"),
    "ascending": _Rule("comes after a later session", "sort the rows by session"),
    "in_calendar": _Rule(
        "is no session of the calendar",
        "remove the row, or give the symbol its own calendar in universe.yaml",
    ),
}


def bars_schema(calendar: str | None = None) -> pa.DataFrameSchema:
    """Return the schema of a bars frame; with a calendar, every row must be one of its sessions."""
    finite = _check("finite", np.isfinite)
    positive = _check("positive", lambda column: column > 0)
    session_checks = [
        _check("midnight", lambda column: column == column.dt.normalize()),
        _check("unique", lambda column: ~column.duplicated()),
        _check("ascending", lambda column: ~(column.diff() < pd.Timedelta(0))),
    ]
    if calendar is not None:
        session_checks.append(_check("in_calendar", lambda column: in_calendar(column, calendar)))
    columns = {
        "session": pa.Column("datetime64[ns]", session_checks),
        **{name: pa.Column(float, [finite, positive]) for name in PRICE_COLUMNS},
        "volume": pa.Column(float, [finite, _check("not_negative", lambda column: column >= 0)]),
    }
    prices = list(PRICE_COLUMNS)
    rows = [
        _check("lowest", lambda bars: ~(bars["low"] > bars[prices].min(axis=1))),
        _check("highest", lambda bars: ~(bars["high"] < bars[prices].max(axis=1))),
    ]
    return pa.DataFrameSchema(columns, checks=rows, strict=True, ordered=True)


def _check(name: str, function: Callable[..., object]) -> pa.Check:
    return pa.Check(function, name=name)


def in_calendar(session: pd.Series, calendar: str) -> pd.Series:
    """Say for each date in `session` (none empty) whether it is a session of `calendar`."""
    if session.empty:
        return session.isin([])
    return session.isin(sessions(calendar, session.min(), session.max()))


def validate(bars: pd.DataFrame, *, symbol: str, calendar: str | None, where: str) -> pd.DataFrame:
    """Return `bars` with a fresh RangeIndex if they satisfy the schema.

    `where` names the file in the error. Rows are named by the frame's index, so an importer
    passes an index called "line" that counts the file's lines. Raises BadInput that names
    file, row, field, value and remedy for the first few defects and counts the rest.
    """
    if bars.empty:
        raise BadInput(f"{where}: {symbol} has no bars: import a file with at least one row")
    try:
        bars_schema(calendar).validate(bars, lazy=True)
    except SchemaErrors as error:
        raise BadInput(_describe(error.failure_cases, bars, symbol, where)) from None
    return bars.reset_index(drop=True)


def _describe(failures: pd.DataFrame, bars: pd.DataFrame, symbol: str, where: str) -> str:
    if not set(failures["check"]) <= set(_RULES):
        found = ", ".join(f"{name} {kind}" for name, kind in bars.dtypes.items())
        return (
            f"{where}: {symbol} has the columns {found}; bars have {', '.join(BAR_COLUMNS)}, "
            "session as datetime64[ns] without a zone and the others as float64"
        )
    lines = []
    defects = failures.drop_duplicates(["check", "index"]).sort_values("index", kind="stable")
    for case in defects.head(SHOWN).itertuples():
        rule = _RULES[str(case.check)]
        field = rule.field or str(case.column)
        row = bars.loc[[case.index]].iloc[0]
        lines.append(
            f"  {bars.index.name or 'row'} {case.index} ({_text(row['session'])}), {field}: "
            f"{_text(row[field])} {rule.says}; {rule.remedy}"
        )
    if len(defects) > SHOWN:
        lines.append(f"  and {len(defects) - SHOWN} more")
    return "\n".join([f"{where}: bad values of {symbol} ({len(defects)})", *lines])


def _text(value: object) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else str(value)
    return "no date" if value is pd.NaT else f"{value:.10g}"


def warnings(bars: pd.DataFrame, calendar: str) -> list[str]:
    """Return what a person should look at in `bars` (valid bars), one sentence each.

    Missing sessions, sessions without volume or without any movement, leaps and large moves.
    """
    close = bars["close"]
    quiet = bars["volume"] == 0
    frozen = quiet & (bars[list(PRICE_COLUMNS)].diff() == 0).all(axis=1)
    leaps = find_jumps(bars)
    large = np.log(close).diff().abs() > np.log(_LARGE_MOVE)
    large &= ~bars.index.isin([leap.row for leap in leaps])
    expected = sessions(calendar, bars["session"].iloc[0], bars["session"].iloc[-1])
    missing = expected.difference(pd.DatetimeIndex(bars["session"]))
    found = []
    if len(missing):
        runs = spans(~expected.isin(missing), pd.Series(expected))
        found.append(f"missing sessions ({len(missing)}): {runs}")
    long_quiet = in_long_run(quiet, QUIET_SESSIONS)
    if long_quiet.any():
        runs = spans(~long_quiet.to_numpy(), bars["session"])
        found.append(f"long runs of sessions without volume ({int(long_quiet.sum())}): {runs}")
    if frozen.any():
        runs = spans(~frozen.to_numpy(), bars["session"])
        found.append(
            f"sessions without volume that repeat the bar before ({int(frozen.sum())}): {runs}"
        )
    found += [str(leap) for leap in leaps]
    if large.any():
        runs = spans(~large.to_numpy(), bars["session"])
        found.append(
            f"sessions that moved the close {_LARGE_MOVE} x or more ({int(large.sum())}): {runs}"
        )
    return found


def in_long_run(flag: pd.Series, at_least: int) -> pd.Series:
    """Say for each row whether it lies in a run of `at_least` or more True rows."""
    run = (flag != flag.shift()).cumsum()
    return flag & (flag.groupby(run).transform("size") >= at_least)


def spans(outside: np.ndarray, session: pd.Series) -> str:
    """Write the runs of rows where `outside` is False as dates, at most `SHOWN` of them."""
    run = pd.Series(outside).cumsum()[~outside]
    dates = session.reset_index(drop=True)[~outside].groupby(run)
    text = [
        f"{first:%Y-%m-%d}" if first == last else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        for first, last in zip(dates.min(), dates.max(), strict=True)
    ]
    more = f" and {len(text) - SHOWN} more" if len(text) > SHOWN else ""
    return ", ".join(text[:SHOWN]) + more
