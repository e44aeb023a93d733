"""Fetching what is missing: which stocks lack a closed session, and their bars as files.

What a feed sends is no better than what a person drops: it goes through the inbox, where it is
checked, compared with what is stored, and taken or refused. One thing goes past it: a history that
has been adjusted for a new split, which no longer fits the stored one and takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.files import write_text
from retrain_assets.market.bars import BarStore
from retrain_assets.market.calendar import last_closed, next_sessions, session_close, sessions
from retrain_assets.market.feeds import Feed, FeedBusy, FeedFailed, Instrument
from retrain_assets.market.importing import (
    MEDIAN_TOLERANCE,
    WORST_TOLERANCE,
    ImportFailure,
    ImportReport,
    import_files,
)
from retrain_assets.market.inbox import (
    IMPORTED,
    QUARANTINE,
    REPORT,
    free_path,
    holding,
    quarantined,
)

# Sessions fetched of a stock without bars: over ten years, as the bundled stocks have.
FIRST_SESSIONS = 2700
# Days that hold so many sessions of any calendar.
_DAYS_PER_SESSION = 1.6
# Stored sessions that a history may lack and still take its place.
_LOST = 5
# A vendor that stays away for so many stocks running is not asked for the rest.
_BUSY_RUNNING = 2


@dataclass(frozen=True)
class Due:
    """A stock whose last closed session is not stored.

    session: that session. stored: the last one that is, None without any bars. first: the
    session to fetch from.
    """

    instrument: Instrument
    session: pd.Timestamp
    stored: pd.Timestamp | None
    first: pd.Timestamp

    @property
    def symbol(self) -> str:
        """The stock's symbol."""
        return self.instrument.symbol

    def since(self, *, delay_hours: float) -> pd.Timestamp:
        """Moment (UTC) from which a session has been missing; of a stock without bars, the last."""
        calendar, missing = self.instrument.calendar, self.session
        if self.stored is not None:
            (missing,) = next_sessions(calendar, self.stored, 1)
        return session_close(calendar, missing) + pd.Timedelta(hours=delay_hours)


@dataclass(frozen=True)
class Fetched:
    """Bars that were fetched of one stock.

    file: what was dropped into the inbox, None where the feed has nothing that is not stored, and
    where the history was replaced; then `replaced` says what by.
    """

    symbol: str
    bars: int
    last: pd.Timestamp
    file: Path | None
    replaced: ImportReport | None = None

    def __str__(self) -> str:
        if self.replaced is not None:
            return f"history replaced, it was adjusted for a split: {self.replaced}"
        if self.file is None:
            return f"{self.symbol}: nothing newer than {self.last:%Y-%m-%d}"
        return f"{self.symbol}: {self.bars} bars to {self.last:%Y-%m-%d}"


@dataclass
class Outcome:
    """What a round of fetching came to, by symbol; `failed` has the reasons."""

    fetched: dict[str, Fetched] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def due(
    instruments: Iterable[Instrument],
    store: BarStore,
    *,
    delay_hours: float,
    overlap_sessions: int,
    now: pd.Timestamp,
) -> tuple[list[Due], dict[str, str]]:
    """Stocks whose last closed session is not stored, and by symbol why one cannot be looked at.

    delay_hours: from a session's close until it counts as closed. overlap_sessions: stored
    sessions that are fetched again. now: tz-aware.
    """
    delay = pd.Timedelta(hours=delay_hours)
    closed: dict[str, pd.Timestamp] = {}
    found: list[Due] = []
    failed: dict[str, str] = {}
    for instrument in instruments:
        calendar = instrument.calendar
        try:
            if calendar not in closed:
                closed[calendar] = last_closed(calendar, now, delay=delay)
            stored = store.stored(instrument.symbol).last if store.has(instrument.symbol) else None
            if stored is None or stored < closed[calendar]:
                count = FIRST_SESSIONS if stored is None else overlap_sessions
                end = closed[calendar] if stored is None else stored
                first = _sessions_before(calendar, end, count)
                found.append(Due(instrument, closed[calendar], stored, first))
        except (RetrainError, OSError) as error:
            failed[instrument.symbol] = str(error)
    return found, failed


def fetch_all(
    wanted: Iterable[Due],
    feed: Feed,
    store: BarStore,
    inbox: Path,
    *,
    told: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Fetch the bars of each stock; one that fails never stops the others.

    told: called with a line on each stock. A feed that stays away for two stocks running is left
    alone, and the rest fail with its words.
    """
    outcome, running, busy = Outcome(), 0, ""
    for each in wanted:
        try:
            if running >= _BUSY_RUNNING:
                raise FeedBusy(f"not asked for, because {busy}")
            fetched = fetch(each, feed, store, inbox)
        except FeedBusy as error:
            busy, running = busy if running >= _BUSY_RUNNING else str(error), running + 1
            outcome.failed[each.symbol] = str(error)
        except (RetrainError, OSError) as error:
            running = 0
            outcome.failed[each.symbol] = str(error)
        else:
            running = 0
            outcome.fetched[each.symbol] = fetched
        failure = outcome.failed.get(each.symbol)
        told(f"{each.symbol}: {failure}" if failure else str(outcome.fetched[each.symbol]))
    return outcome


def fetch(wanted: Due, feed: Feed, store: BarStore, inbox: Path) -> Fetched:
    """Fetch the bars of one stock and drop them into the inbox as `SYMBOL.<feed>.csv`.

    Raises BadInput and what `Feed.daily_bars` raises; BadInput too for bars that the inbox has
    refused already.
    """
    symbol = wanted.symbol
    bars = feed.daily_bars(wanted.instrument, wanted.first, wanted.session)
    if bars.empty:
        raise FeedFailed(
            f"{feed.title} has no bar of {symbol} from {wanted.first:%Y-%m-%d} to "
            f"{wanted.session:%Y-%m-%d}: if it is traded no longer, write `active: false`"
        )
    last = pd.Timestamp(bars["session"].iloc[-1])
    if wanted.stored is not None:
        stored = store.read(symbol)
        if _level(stored, bars) is not None:
            return _replaced(wanted, feed, store, inbox, stored)
        if last <= wanted.stored:
            return Fetched(symbol, 0, last, None)
    name, text = f"{symbol}.{feed.name}.csv", _text(symbol, bars)
    _refuse_what_was_refused(inbox, symbol, feed.name, text)
    write_text(inbox / name, text)
    return Fetched(symbol, len(bars), last, inbox / name)


def _sessions_before(calendar: str, end: pd.Timestamp, count: int) -> pd.Timestamp:
    """The first of the `count` sessions that end with `end`."""
    days = pd.Timedelta(days=int(count * _DAYS_PER_SESSION) + 30)
    return pd.Timestamp(sessions(calendar, end - days, end)[-count:][0])


def _level(stored: pd.DataFrame, bars: pd.DataFrame) -> float | None:
    """By what the closes differ where they do so throughout alike, as after a split; else None."""
    both = stored.merge(bars, on="session", suffixes=("_old", "_new"))
    if both.empty:
        return None
    ratio = both["close_new"] / both["close_old"]
    level = float(ratio.median())
    apart = (ratio / level - 1).abs()
    alike = apart.median() <= MEDIAN_TOLERANCE and apart.max() <= WORST_TOLERANCE
    return level if alike and (ratio - 1).abs().median() > MEDIAN_TOLERANCE else None


def _replaced(
    wanted: Due, feed: Feed, store: BarStore, inbox: Path, stored: pd.DataFrame
) -> Fetched:
    """Fetch the whole history and store it in place of one that was adjusted for fewer splits."""
    symbol = wanted.symbol
    begin = pd.Timestamp(stored["session"].iloc[0])
    bars = feed.daily_bars(wanted.instrument, begin, wanted.session)
    level = _level(stored, bars)
    lost = int((~stored["session"].isin(bars["session"])).sum())
    if level is None or lost > _LOST:
        why = f"lacks {lost} of the stored sessions" if lost > _LOST else "does not fit throughout"
        raise FeedFailed(
            f"the closes of {symbol} at {feed.title} are adjusted otherwise than the stored ones "
            f"(a split?), but its history from {begin:%Y-%m-%d} {why}: import a whole history "
            "with `retrain import FILE --replace`"
        )
    text = _text(symbol, bars)
    _refuse_what_was_refused(inbox, symbol, feed.name, text)
    with holding(inbox):
        # Where accepted files end up, and not in the inbox itself: there it would be added.
        file = free_path(inbox / IMPORTED, f"{symbol}.{feed.name}.csv", pd.Timestamp.now("UTC"))
        write_text(file, text)
        (result,) = import_files(
            [file], store, calendar_of=lambda _: wanted.instrument.calendar, replace=True
        )
        if isinstance(result, ImportFailure):
            refused = quarantined(file, (), [str(result)], inbox=inbox, now=time.time())
            raise BadInput(str(refused))
    return Fetched(symbol, len(bars), result.last, None, result)


def _text(symbol: str, bars: pd.DataFrame) -> str:
    """Bars as CSV that reads back to the same bits."""
    return bars.assign(symbol=symbol).to_csv(index=False, date_format="%Y-%m-%d")


def _refuse_what_was_refused(inbox: Path, symbol: str, source: str, text: str) -> None:
    """Raise BadInput if the same bytes lie in quarantine: they would be refused once more."""
    for file in _quarantined(inbox, symbol, source):
        if file.stat().st_size == len(text.encode()) and file.read_text("utf-8") == text:
            raise BadInput(
                f"the bars of {symbol} are those that the inbox refused before: see "
                f"{file.with_name(file.name + REPORT)}, and remove both when that is seen to"
            )


def _quarantined(inbox: Path, symbol: str, source: str) -> Iterator[Path]:
    for file in sorted((inbox / QUARANTINE).glob(f"{symbol}.{source}*.csv")):
        if file.is_file() and not file.is_symlink():
            yield file
