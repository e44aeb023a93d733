"""Which session a row's time stamp means: written dates, zones, and daily bars stamped oddly."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pandas as pd

from retrain_assets.errors import BadInput

_SHOWN = 5
# A full date, alone or with a time; fewer parts (a bare year) would be guesswork.
_ISO = r"\d{4}-\d{2}-\d{2}(?:[T ].*)?"
_ZONED = r"\d{4}-\d{2}-\d{2}[T ].*(?:Z|[+-]\d{2}(?::?\d{2})?)"
_OTHER_FORMATS = ("%Y%m%d", "%Y/%m/%d", "%Y.%m.%d")
_SLASHED = {"month first": "%m/%d/%Y", "day first": "%d/%m/%Y"}
# Later than this, exchange-local, a stamp may as well belong to the next session: midnight UTC
# is 19:00 or 20:00 in New York.
_LATEST = pd.Timedelta(hours=18)
_DAY_END = pd.Timedelta(hours=23, minutes=59)


def to_sessions(stamps: pd.Series, zone: ZoneInfo, where: str) -> tuple[pd.Series, list[str]]:
    """Return the session each stamp means (datetime64[ns], naive midnight) and what was assumed.

    `stamps` are text, dates or time stamps; its index, by whose name rows are called in errors,
    counts lines or rows. `zone` is the exchange's. The rules:

    - A date, or a time stamp without a zone, is exchange-local.
    - A zoned stamp at midnight UTC is a label and means its UTC date.
    - Any other zoned stamp means its date on the exchange's clock, if that clock shows at most
      18:00 (midnight, open and close qualify) or the day's last minute.

    Raises BadInput for what is no full date, for dates whose day and month cannot be told
    apart, for a mixture of stamps with and without a zone, for zoned stamps that no rule
    covers, and for several bars in one session (intraday data).
    """
    times, noted = _parsed(stamps, where)
    if times.dt.tz is None:
        if (times != times.dt.normalize()).any():
            noted.append("time stamps have no zone: their dates were taken as the exchange's")
        session = times.dt.normalize()
    else:
        session, said = _from_zoned(times, zone, where)
        noted += said
    _refuse_intraday(times, session, where)
    return session.astype("datetime64[ns]"), noted


def _parsed(stamps: pd.Series, where: str) -> tuple[pd.Series, list[str]]:
    if isinstance(stamps.dtype, pd.DatetimeTZDtype) or stamps.dtype.kind == "M":
        _refuse(stamps, stamps.isna(), "is empty", where)
        return stamps, []
    text = stamps.astype("string").str.strip()
    empty = (text.isna() | (text == "")).astype(bool)
    _refuse(stamps, empty, "is empty; fill in the date", where)
    iso = text.str.fullmatch(_ISO).astype(bool)
    if not iso.any():
        return _in_other_format(text, where)
    zoned = text.str.fullmatch(_ZONED).astype(bool) & iso
    if zoned.any():
        _refuse(stamps, ~zoned, "has no zone while others have; write all alike", where)
    times = pd.to_datetime(
        text.where(iso), format="ISO8601", utc=bool(zoned.any()), errors="coerce"
    )
    _refuse(stamps, times.isna(), "is no date; write it as YYYY-MM-DD", where)
    return times, []


def _in_other_format(text: pd.Series, where: str) -> tuple[pd.Series, list[str]]:
    for form in _OTHER_FORMATS:
        times = pd.to_datetime(text, format=form, errors="coerce")
        if times.notna().all():
            return times, []
    read = {
        name: pd.to_datetime(text, format=form, errors="coerce") for name, form in _SLASHED.items()
    }
    fits = {name: times for name, times in read.items() if times.notna().all()}
    if len(fits) == 1:
        ((name, times),) = fits.items()
        return times, [f"dates were read {name}, the only order in which all are dates"]
    everywhere = pd.Series(True, index=text.index)
    if not fits:
        neither = pd.concat(read.values(), axis=1).isna().all(axis=1)
        bad = neither if neither.any() else everywhere
        _refuse(text, bad, "is no date; write it as YYYY-MM-DD", where)
    if not fits["month first"].equals(fits["day first"]):
        _refuse(text, everywhere, "may be day or month first; write dates as YYYY-MM-DD", where)
    return fits["month first"], []


def _from_zoned(times: pd.Series, zone: ZoneInfo, where: str) -> tuple[pd.Series, list[str]]:
    utc = times.dt.tz_convert("UTC").dt.tz_localize(None)
    local = times.dt.tz_convert(zone).dt.tz_localize(None)
    label = utc == utc.dt.normalize()
    clock = local - local.dt.normalize()
    unclear = ~label & (clock > _LATEST) & (clock < _DAY_END)
    _refuse(
        times,
        unclear,
        f"is after {_LATEST.components.hours}:00 in {zone.key}, so its session is unclear; stamp "
        "each row with its session's date",
        where,
    )
    session = utc.where(label, local).dt.normalize()
    notes = []
    if label.any():
        notes.append(f"stamps at midnight UTC were taken as dates ({int(label.sum())})")
    if not label.all():
        notes.append(f"stamps were turned into dates of {zone.key} ({int((~label).sum())})")
    return session, notes


def _refuse_intraday(times: pd.Series, session: pd.Series, where: str) -> None:
    several = times.groupby(session).transform("nunique") > 1
    _refuse(
        times,
        several,
        "shares its session with other time stamps: these are intraday bars; combine them into "
        "one bar a session first",
        where,
    )


def _refuse(stamps: pd.Series, bad: pd.Series, says: str, where: str) -> None:
    """Raise BadInput that names the first rows where `bad` holds, if it does anywhere."""
    if not bad.any():
        return
    rows = [f"{bad.index.name} {row} ({stamps.loc[row]})" for row in bad.index[bad][:_SHOWN]]
    more = int(bad.sum()) - len(rows)
    raise BadInput(
        f"{where}: the date of {', '.join(rows)}{f' and {more} more' if more else ''} {says}"
    )
