"""From the rows of a file to bars: what can be mended without guessing is mended and said.

Everything else is refused by the schema, or here where it needs words of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BAR_COLUMNS, VALUE_COLUMNS
from retrain_assets.market.calendar import session_close, zone
from retrain_assets.market.price_files import RawBars
from retrain_assets.market.schema import (
    PRICE_COLUMNS,
    QUIET_SESSIONS,
    SHOWN,
    in_calendar,
    in_long_run,
    spans,
    validate,
)
from retrain_assets.market.stamps import to_sessions

# Two weeks of sessions: so long without volume is no pause in trading.
_WEEKS = 10
# Adjusted prices are products of rounded numbers: so far, relatively, may a high lie below
# the close it stems from.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class CleanBars:
    """Valid bars of one symbol, and how they came about.

    lines: each row's place in the file, under the name "line" or "row". repairs: what was
    changed or assumed, in words.
    """

    symbol: str
    bars: pd.DataFrame
    lines: pd.Index
    repairs: tuple[str, ...]


def clean(raw: RawBars, calendar: str, *, now: pd.Timestamp) -> CleanBars:
    """Turn the rows of a file into valid bars of `calendar`.

    `now` (tz-aware) tells which session is still running. Repaired, with a sentence each in
    `repairs`: rows without any price, rows out of order, identical repeats, forward-filled
    days that are no sessions, the running session's bar, highs and lows off by rounding,
    weeks in which a bar is only repeated. Raises BadInput that names file, row, field and
    remedy for everything else the schema refuses, for repeats that disagree, dates in the
    future and weeks of moving prices without volume.
    """
    where = str(raw.path)
    values = _numbers(raw, where)
    no_volume = []
    if "volume" not in values:
        values["volume"] = 0.0
        no_volume = ["the file has no volume: set to 0"]
    empty = values[list(PRICE_COLUMNS)].isna().all(axis=1)
    if empty.all():
        raise BadInput(f"{where}: no row of {raw.symbol} has a price: fetch the file again")
    values = values[~empty]
    session, dated = to_sessions(values["stamp"], zone(calendar), where)
    bars, ordered = _ordered(values.assign(session=session)[list(BAR_COLUMNS)])
    bars, repeated = _without_repeats(bars, where)
    bars, running = _without_running(bars, calendar, where, now)
    bars, filled = _without_filled_days(bars, calendar)
    bars, frozen = _without_frozen_weeks(bars, where)
    bars, rounded = _rounded(bars)
    lines = bars.index
    bars = validate(bars, symbol=raw.symbol, calendar=calendar, where=where)
    priceless = _dropped(empty, "rows without any price")
    repairs = (*raw.notes, *no_volume, *priceless, *dated, *ordered, *repeated, *running)
    return CleanBars(raw.symbol, bars, lines, (*repairs, *filled, *frozen, *rounded))


def _numbers(raw: RawBars, where: str) -> pd.DataFrame:
    """Parse the value columns exactly (text as Python reads it); refuses what is no number."""
    values = raw.values.copy()
    bad = []
    for name in [name for name in VALUE_COLUMNS if name in values]:
        if values[name].dtype.kind in "fiu":
            values[name] = values[name].astype(float)
            continue
        cells = values[name].items()
        parsed = [(row, cell, _number(cell)) for row, cell in cells]
        bad += [(row, name, cell) for row, cell, number in parsed if number is None]
        values[name] = np.array([number for *_, number in parsed], dtype=float)
    if bad:
        kind = values.index.name
        shown = "; ".join(f"{kind} {row}, {name}: {text!r}" for row, name, text in bad[:SHOWN])
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadInput(
            f"{where}: no number in {shown}{more}; write plain numbers such as 1234.5, or leave "
            "all prices of a row empty"
        )
    return values


def _number(cell: object) -> float | None:
    """The cell as a number, NaN where it is empty, None where it is something else."""
    text = str(cell).strip().lower()
    if text in ("", "nan", "none", "null", "<na>", "n/a", "na"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return None


def _dropped(rows: pd.Series, what: str) -> list[str]:
    """Say that the rows marked True were dropped, and where they stand in the file."""
    if not rows.any():
        return []
    at = [str(row) for row in rows.index[rows]]
    more = f" and {len(at) - SHOWN} more" if len(at) > SHOWN else ""
    return [f"dropped {what} ({len(at)}): {rows.index.name} {', '.join(at[:SHOWN])}{more}"]


def _ordered(bars: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    if bars["session"].is_monotonic_increasing:
        return bars, []
    how = "newest first" if bars["session"].is_monotonic_decreasing else "out of order"
    return bars.sort_values("session", kind="stable"), [f"rows were {how}: sorted by session"]


def _without_repeats(bars: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    again = bars.duplicated(list(BAR_COLUMNS))
    bars, said = bars[~again], _dropped(again, "rows that repeat another exactly")
    conflicting = bars["session"].duplicated(keep=False)
    if conflicting.any():
        rows = bars[conflicting]
        fields = [
            name for name in VALUE_COLUMNS if rows.groupby("session")[name].nunique().max() > 1
        ]
        shown = [
            f"{bars.index.name} {row} ({day:%Y-%m-%d})" for row, day in rows["session"].items()
        ]
        raise BadInput(
            f"{where}: {', '.join(shown[: 2 * SHOWN])} share a session and differ in "
            f"{', '.join(fields)}; keep the right row of each session"
        )
    return bars, said


def _without_running(
    bars: pd.DataFrame, calendar: str, where: str, now: pd.Timestamp
) -> tuple[pd.DataFrame, list[str]]:
    """Drop the bar of a session that has not closed yet; refuse dates after it."""
    today = now.tz_convert(zone(calendar)).tz_localize(None).normalize()
    future = bars.index[bars["session"] > today]
    if len(future):
        day = bars["session"].loc[future[0]]
        raise BadInput(
            f"{where}, {bars.index.name} {future[0]}, session: {day:%Y-%m-%d} lies in the future "
            f"(today is {today:%Y-%m-%d}); correct the date, or the clock of this machine"
        )
    running = bars["session"] == today
    if not running.any() or not in_calendar(bars["session"], calendar)[running].all():
        return bars, []
    if session_close(calendar, today) <= now:
        return bars, []
    return bars[~running], _dropped(running, "bars of a session that has not closed yet")


def _without_filled_days(bars: pd.DataFrame, calendar: str) -> tuple[pd.DataFrame, list[str]]:
    """Drop days that are no sessions and only carry the last session's close on."""
    inside = in_calendar(bars["session"], calendar)
    last_close = bars["close"].where(inside).ffill()
    filled = ~inside & (bars["close"] == last_close)
    return bars[~filled], _dropped(filled, f"forward-filled days that are no {calendar} sessions")


def _without_frozen_weeks(bars: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    """Drop weeks without volume in which a bar is only repeated; refuse those that move."""
    quiet = bars["volume"] == 0
    if quiet.all():
        return bars, []
    weeks = in_long_run(quiet, _WEEKS)
    prices = bars[list(PRICE_COLUMNS)]
    flat = prices.eq(bars["close"].shift(), axis=0).all(axis=1)
    frozen = weeks & (flat | prices.diff().eq(0).all(axis=1))
    moving = in_long_run(weeks & ~frozen, QUIET_SESSIONS)
    if moving.any():
        row = bars.index[moving][0]
        raise BadInput(
            f"{where}, from {bars.index.name} {row}, volume: 0 for weeks while prices move "
            f"({spans(~moving.to_numpy(), bars['session'])}); get the volumes, or remove the "
            "column volume if the instrument has none"
        )
    return bars[~frozen], _dropped(frozen, "sessions of weeks in which a bar is only repeated")


def _rounded(bars: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    prices = bars[list(PRICE_COLUMNS)]
    top, bottom = prices.max(axis=1), prices.min(axis=1)
    low = (bars["low"] > bottom) & (bars["low"] <= bottom * (1 + _ROUNDING))
    high = (bars["high"] < top) & (bars["high"] >= top * (1 - _ROUNDING))
    if not (low | high).any():
        return bars, []
    mended = bars.assign(
        low=np.where(low, bottom, bars["low"]), high=np.where(high, top, bars["high"])
    )
    rows = int((low | high).sum())
    return mended, [f"highs and lows off by rounding ({rows}): set to the row's extreme"]
