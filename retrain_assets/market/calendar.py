"""Trading sessions of an exchange, and the bar at which a month's knowledge ends.

Sessions are tz-naive midnights in the exchange's local time, as exchange_calendars labels
them. `XNYS` serves US stocks, `24/7` serves coins (every UTC day is a session).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.files import is_month

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

US_STOCKS = "XNYS"
"""The calendar of a symbol of which nothing else is said."""
# Building a calendar costs about half a second, so a few fixed spans are built and kept.
_FIRST_YEARS = (2006, 1970, 1885)
_YEARS_AHEAD = (2, 5, 30)  # whole years after the current one
# Calendar days that surely hold one more session, holidays and long weekends included.
_DAYS_PER_SESSION = 2
_SLACK_DAYS = 30
# Days among which there is a session that has closed, whatever the holidays.
_DAYS_BACK = 30
_NO_DELAY = pd.Timedelta(0)


@lru_cache(maxsize=16)
def _build(name: str, start: str, end: str) -> ExchangeCalendar:
    # Imported here because its readers mostly need bars, not sessions.
    import exchange_calendars

    low, high = _bounds(name)
    first = max(pd.Timestamp(start), low) if low is not None else pd.Timestamp(start)
    last = min(pd.Timestamp(end), high) if high is not None else pd.Timestamp(end)
    return exchange_calendars.get_calendar(name, start=first, end=last)


@lru_cache(maxsize=16)
def _bounds(name: str) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """Earliest and latest date for which exchange_calendars knows the holidays of `name`."""
    import exchange_calendars

    known = exchange_calendars.get_calendar_names()
    if name not in known:
        raise BadInput(
            f"{name!r} is no known calendar: use XNYS for US stocks, 24/7 for coins, or another "
            "name that exchange_calendars lists"
        )
    # A single week is enough to ask for the bounds, which belong to the calendar's class.
    week = exchange_calendars.get_calendar(name, start="2022-03-07", end="2022-03-11")
    return week.bound_min(), week.bound_max()


def _calendar(name: str, first: pd.Timestamp, last: pd.Timestamp) -> ExchangeCalendar:
    """The narrowest cached calendar that covers the dates `first` to `last`."""
    low, high = _bounds(name)
    if (low is not None and first < low) or (high is not None and last > high):
        raise BadInput(
            f"calendar {name} knows no sessions for {first:%Y-%m-%d} to {last:%Y-%m-%d}: it "
            f"covers {_say(low, 'the past')} to {_say(high, 'the future')}"
        )
    this_year = dt.datetime.now(dt.UTC).year
    begin = next((year for year in _FIRST_YEARS if year <= first.year), None)
    end = next((this_year + n for n in _YEARS_AHEAD if last.year <= this_year + n), None)
    if begin is None or end is None:
        raise BadInput(
            f"{first:%Y-%m-%d} to {last:%Y-%m-%d} lies outside {_FIRST_YEARS[-1]} to "
            f"{this_year + _YEARS_AHEAD[-1]}, the years calendars are built for: check the dates"
        )
    return _build(name, f"{begin}-01-01", f"{end}-12-31")


def _say(bound: pd.Timestamp | None, otherwise: str) -> str:
    return otherwise if bound is None else f"{bound:%Y-%m-%d}"


def sessions(calendar: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
    """Return the sessions of `calendar` from `start` to `end`, both inclusive.

    Raises BadInput for an unknown calendar and for dates outside what it covers.
    """
    start, end = pd.Timestamp(start).normalize(), pd.Timestamp(end).normalize()
    everything = _calendar(calendar, start, end).sessions
    low, high = everything.searchsorted(start), everything.searchsorted(end, side="right")
    return pd.DatetimeIndex(everything[low:high].to_numpy(dtype="datetime64[ns]"))


def next_sessions(calendar: str, after: pd.Timestamp, count: int) -> pd.DatetimeIndex:
    """Return the `count` sessions of `calendar` that follow the date `after`, which is left out.

    Raises BadInput where the calendar's holidays are not known that far ahead.
    """
    after = pd.Timestamp(after).normalize()
    end = after + pd.Timedelta(days=count * _DAYS_PER_SESSION + _SLACK_DAYS)
    _, high = _bounds(calendar)
    if high is not None:
        end = min(end, max(high, after))
    following = sessions(calendar, after + pd.Timedelta(days=1), end)
    if len(following) < count:
        raise BadInput(
            f"calendar {calendar} knows {len(following)} sessions after {after:%Y-%m-%d}, "
            f"{count} are needed: update exchange_calendars"
        )
    return following[:count]


def zone(calendar: str) -> ZoneInfo:
    """Return the time zone of the exchange (`UTC` for `24/7`)."""
    day = pd.Timestamp("2022-03-07")
    return ZoneInfo(str(_calendar(calendar, day, day).tz))


def session_close(calendar: str, session: pd.Timestamp) -> pd.Timestamp:
    """Return the tz-aware UTC moment from which the bar of `session` can no longer change."""
    return pd.Timestamp(_calendar(calendar, session, session).session_close(session))


@dataclass(frozen=True)
class MonthEnd:
    """Where a month ("YYYY-MM") ends by a calendar.

    last_session: its last session. close: moment from which that session's bar can no longer
    change, UTC.
    """

    month: str
    last_session: pd.Timestamp
    close: pd.Timestamp


def month_end(calendar: str, month: str) -> MonthEnd:
    """Return the end of `month` by `calendar`.

    Raises BadInput for a malformed month, and where the calendar knows no session in it.
    """
    found = sessions(calendar, *_month_days(month))
    if found.empty:
        raise BadInput(f"calendar {calendar} has no session in {month}: choose another calendar")
    return MonthEnd(month, found[-1], session_close(calendar, found[-1]))


def last_closed(
    calendar: str, now: pd.Timestamp, *, delay: pd.Timedelta = _NO_DELAY
) -> pd.Timestamp:
    """The latest session of `calendar` that closed by `now` (tz-aware), the delay added.

    Raises BadInput for a calendar that knows none of the month before.
    """
    today = now.tz_convert(zone(calendar)).tz_localize(None).normalize()
    for session in sessions(calendar, today - pd.Timedelta(days=_DAYS_BACK), today)[::-1]:
        if session_close(calendar, session) + delay <= now:
            return pd.Timestamp(session)
    raise BadInput(
        f"calendar {calendar} has no session that closed in the {_DAYS_BACK} days before "
        f"{now:%Y-%m-%d %H:%M} UTC: check the calendar, and the clock of this machine"
    )


@dataclass(frozen=True)
class MonthCut:
    """Where the knowledge of one month's partition ends.

    cut: the last stored bar of the month; nothing after it may be read.
    last_session: the month's last session by the calendar.
    provisional: True while neither the last session nor any later bar is stored, so that
        newer bars may still move the cut.
    """

    month: str
    cut: pd.Timestamp
    last_session: pd.Timestamp
    provisional: bool


def month_cut(
    month: str,
    stored: pd.DatetimeIndex,
    calendar: str,
    *,
    symbol: str,
    today: dt.date | None = None,
) -> MonthCut:
    """Return the cut of `month` ("YYYY-MM") for a symbol whose stored sessions are `stored`.

    `stored` is ascending. `today` (default: the current UTC date) decides which months lie in
    the future. Raises BadInput for a malformed month, a future one, and one without a bar;
    the message says where the bars begin and end.
    """
    first, last = _month_days(month)
    now = pd.Timestamp(today if today is not None else dt.datetime.now(dt.UTC).date())
    if first > now:
        raise BadInput(f"month {month} lies in the future (today is {now:%Y-%m-%d})")
    inside = stored[(stored >= first) & (stored <= last)]
    if inside.empty:
        raise BadInput(_no_bar(month, stored, symbol, last))
    of_month = sessions(calendar, first, last)
    if of_month.empty:
        raise BadInput(
            f"calendar {calendar} has no session in {month}, yet {symbol} has bars there: "
            "give the symbol its own calendar in universe.yaml"
        )
    cut, last_session = inside[-1], of_month[-1]
    provisional = bool(cut < last_session and stored[-1] <= last)
    return MonthCut(month, cut, last_session, provisional)


def last_final_month(stored: pd.DatetimeIndex, calendar: str, *, symbol: str) -> str:
    """The latest month ("YYYY-MM") whose last session is stored; `stored` is ascending.

    It is the month of the last bar, or the one before while that is provisional. Raises BadInput
    like `month_cut`.
    """
    last = f"{stored[-1]:%Y-%m}"
    cut = month_cut(last, stored, calendar, symbol=symbol)
    return month_before(last) if cut.provisional else last


def last_closed_month(
    calendar: str, moment: pd.Timestamp, *, delay: pd.Timedelta, step: int = 1
) -> MonthEnd:
    """The latest month whose last session closed by `moment` (tz-aware), the delay added.

    step: 3 to look at quarter months (March, June, September, December) alone.
    """
    month = f"{moment.tz_convert('UTC'):%Y-%m}"
    while True:
        if int(month[5:]) % step == 0:
            end = month_end(calendar, month)
            if end.close + delay <= moment:
                return end
        month = month_before(month)


def month_before(month: str, count: int = 1) -> str:
    """The month that lies so many before one, both as "YYYY-MM"."""
    return str(pd.Period(month, freq="M") - count)


def month_after(month: str, count: int = 1) -> str:
    """The month that lies so many after one, both as "YYYY-MM"."""
    return month_before(month, -count)


def _month_days(month: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    if not is_month(month):
        raise BadInput(f"month {month!r} is malformed: write it as YYYY-MM, such as 2023-08")
    period = pd.Period(month, freq="M")
    return period.start_time, period.end_time.normalize()


def _no_bar(month: str, stored: pd.DatetimeIndex, symbol: str, last: pd.Timestamp) -> str:
    if stored.empty:
        return (
            f"{symbol} has no bar in {month} and none at all: import bars (`retrain import FILE`)"
        )
    where = f"{symbol} has no bar in {month}; its bars begin {stored[0]:%Y-%m-%d} and end "
    where += f"{stored[-1]:%Y-%m-%d}"
    if stored[-1] < last:
        return f"{where}: import newer bars (`retrain import FILE`)"
    return f"{where}: choose a month they cover, or import the missing ones"
