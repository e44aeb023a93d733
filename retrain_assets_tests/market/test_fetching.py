"""Fetching what is missing: what is due, what lands in the inbox, what a split does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BarStore
from retrain_assets.market.feeds import FeedBusy, FeedFailed, Instrument
from retrain_assets.market.fetching import Due, due, fetch, fetch_all
from retrain_assets.market.inbox import Taken, take_in
from retrain_assets_tests.market.made import PRICES, same, walk

NVDA = Instrument("NVDA")
# The 60 sessions of `walk(60)` end with 2023-09-26.
NOW = pd.Timestamp("2023-09-27 00:00", tz="UTC")
LAST = pd.Timestamp("2023-09-26")


@dataclass
class Made:
    """A feed that has these histories and fails with these errors; asked: what it was asked for."""

    bars: dict[str, pd.DataFrame] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    name: str = "made"
    title: str = "Made up"

    def daily_bars(
        self, instrument: Instrument, first: pd.Timestamp, last: pd.Timestamp
    ) -> pd.DataFrame:
        self.asked.append((instrument.symbol, f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"))
        if instrument.symbol in self.errors:
            raise self.errors[instrument.symbol]
        bars = self.bars[instrument.symbol]
        return bars[bars["session"].between(first, last)].reset_index(drop=True)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Where fetched bars are dropped; not there yet."""
    return tmp_path / "inbox"


def history(count: int) -> pd.DataFrame:
    """The first of the 60 bars."""
    return walk(60).head(count)


def stored(store: BarStore, count: int, symbol: str = "NVDA") -> None:
    store.write(symbol, history(count), source="made")


def wanted(store: BarStore, *instruments: Instrument, now: pd.Timestamp = NOW) -> list[Due]:
    found, failed = due(instruments or (NVDA,), store, delay_hours=2, overlap_sessions=10, now=now)
    assert failed == {}
    return found


def taken(inbox: Path, store: BarStore) -> Taken:
    return take_in(
        inbox,
        store,
        calendar_of=lambda _: "XNYS",
        aliases={},
        quiet_seconds=0,
        largest_mb=1,
        seen={},
    )


def test_a_stock_is_due_when_its_last_closed_session_is_not_stored(store: BarStore) -> None:
    stored(store, 59)
    (each,) = wanted(store)
    assert (each.symbol, each.session) == ("NVDA", LAST)
    assert each.stored == pd.Timestamp("2023-09-25")
    # Ten stored sessions are fetched again.
    assert each.first == pd.Timestamp("2023-09-12")
    assert each.since(delay_hours=2) == pd.Timestamp("2023-09-26 22:00", tz="UTC")
    stored(store, 60)
    assert wanted(store) == []


def test_a_session_is_not_due_before_its_delay_has_passed(store: BarStore) -> None:
    stored(store, 59)
    assert wanted(store, now=pd.Timestamp("2023-09-26 21:59", tz="UTC")) == []
    assert len(wanted(store, now=pd.Timestamp("2023-09-26 22:00", tz="UTC"))) == 1


def test_a_stock_without_bars_is_fetched_for_ten_years(store: BarStore) -> None:
    from retrain_assets.market.calendar import sessions

    (stock, coin) = wanted(store, NVDA, Instrument("BTCUSD", "24/7"))
    assert stock.stored is None
    assert len(sessions("XNYS", stock.first, stock.session)) == 2700
    assert coin.session - coin.first == pd.Timedelta(days=2699)


def test_a_stock_that_cannot_be_looked_at_does_not_hide_the_others(store: BarStore) -> None:
    stored(store, 59)
    stored(store, 59, "AMD")
    (store.root / "AMD.parquet").write_bytes(b"nothing")
    instruments = [Instrument("AMD"), Instrument("SAP", "NOWHERE"), NVDA]
    found, failed = due(instruments, store, delay_hours=2, overlap_sessions=10, now=NOW)
    assert [each.symbol for each in found] == ["NVDA"]
    assert "no readable Parquet file" in failed["AMD"]
    assert "no known calendar" in failed["SAP"]


def test_fetched_bars_are_stored_to_the_last_bit(store: BarStore, inbox: Path) -> None:
    stored(store, 50)
    feed = Made({"NVDA": walk(60)})
    fetched = fetch(wanted(store)[0], feed, store, inbox)
    assert fetched.file == inbox / "NVDA.made.csv"
    assert feed.asked == [("NVDA", "2023-08-29", "2023-09-26")]
    # Nothing half-written lies about, and the store is as it was.
    assert [path.name for path in inbox.iterdir()] == ["NVDA.made.csv"]
    assert same(store, history(50))
    (report,) = taken(inbox, store).imported
    assert (report.added, report.changed) == (10, 0)
    assert same(store, walk(60))
    assert store.source("NVDA") == "NVDA.made.csv"


def test_corrections_of_recent_bars_are_taken_along(store: BarStore, inbox: Path) -> None:
    stored(store, 50)
    corrected = walk(60)
    corrected.loc[48, "volume"] += 1
    fetch(wanted(store)[0], Made({"NVDA": corrected}), store, inbox)
    assert taken(inbox, store).imported[0].changed == 1
    assert same(store, corrected)


def test_nothing_is_dropped_where_there_is_nothing_newer(store: BarStore, inbox: Path) -> None:
    stored(store, 58)
    fetched = fetch(wanted(store)[0], Made({"NVDA": history(58)}), store, inbox)
    assert fetched.file is None
    assert str(fetched) == "NVDA: nothing newer than 2023-09-22"
    assert not inbox.exists()


def test_a_feed_without_any_bar_is_told(store: BarStore, inbox: Path) -> None:
    stored(store, 58)
    with pytest.raises(FeedFailed, match=r"Made up has no bar of NVDA from 2023-09-11 to"):
        fetch(wanted(store)[0], Made({"NVDA": history(10)}), store, inbox)


def split(count: int, factor: float) -> pd.DataFrame:
    """A history as it looks after a split; the store still has it as it was before."""
    bars = history(count).copy()
    bars[PRICES] /= factor
    bars["volume"] *= factor
    return bars


@pytest.mark.parametrize("factor", [10.0, 2.0, 1.5, 0.1])
def test_a_history_adjusted_for_a_new_split_takes_the_old_one_s_place(
    store: BarStore, inbox: Path, factor: float
) -> None:
    stored(store, 50)
    feed = Made({"NVDA": split(60, factor)})
    fetched = fetch(wanted(store)[0], feed, store, inbox)
    assert feed.asked[-1] == ("NVDA", "2023-07-03", "2023-09-26")
    assert same(store, split(60, factor))
    assert fetched.file is None
    assert str(fetched).startswith("history replaced, it was adjusted for a split: NVDA: 60 bars")
    # What it replaced is kept, and so is what was fetched.
    assert len(list((store.root / ".history").iterdir())) == 1
    assert [path.name for path in (inbox / "imported").iterdir()] == ["NVDA.made.csv"]
    assert taken(inbox, store) == Taken((), (), {})
    assert wanted(store) == []


def test_a_shorter_history_never_takes_a_longer_one_s_place(store: BarStore, inbox: Path) -> None:
    stored(store, 50)
    feed = Made({"NVDA": split(60, 10).iloc[20:]})
    with pytest.raises(FeedFailed, match=r"from 2023-07-03 lacks 20 of the stored sessions: imp"):
        fetch(wanted(store)[0], feed, store, inbox)
    assert same(store, history(50))


def test_another_instrument_never_takes_a_history_s_place(store: BarStore, inbox: Path) -> None:
    stored(store, 50)
    other = split(60, 10)
    other.loc[:39, PRICES] *= 3
    with pytest.raises(FeedFailed, match="does not fit throughout"):
        fetch(wanted(store)[0], Made({"NVDA": other}), store, inbox)
    assert same(store, history(50))


def test_a_whole_history_that_is_refused_is_quarantined_once(store: BarStore, inbox: Path) -> None:
    stored(store, 50)
    # Adjusted for one split, and not for the next one.
    half = split(60, 10)
    half.loc[55:, PRICES] /= 10
    feed = Made({"NVDA": half})
    with pytest.raises(BadInput, match=r"the close of NVDA leaps[\s\S]*see .*report.txt"):
        fetch(wanted(store)[0], feed, store, inbox)
    with pytest.raises(BadInput, match="the inbox refused before"):
        fetch(wanted(store)[0], feed, store, inbox)
    names = sorted(path.name for path in (inbox / "quarantine").iterdir())
    assert names == ["NVDA.made.csv", "NVDA.made.csv.report.txt"]
    assert list((inbox / "imported").iterdir()) == []
    assert same(store, history(50))


def test_what_the_inbox_refused_is_not_dropped_again(store: BarStore, inbox: Path) -> None:
    stored(store, 50)
    # Split on a session that is new, and the vendor has not adjusted what was before.
    unadjusted = walk(60)
    unadjusted.loc[55:, PRICES] /= 10
    feed = Made({"NVDA": unadjusted})
    fetch(wanted(store)[0], feed, store, inbox)
    (refused,) = taken(inbox, store).refused
    with pytest.raises(BadInput, match="the inbox refused before") as caught:
        fetch(wanted(store)[0], feed, store, inbox)
    assert str(refused.report) in str(caught.value)
    assert not (inbox / "NVDA.made.csv").exists()
    # Put right by the vendor, they are taken.
    feed.bars["NVDA"] = split(60, 10)
    fetch(wanted(store)[0], feed, store, inbox)
    assert same(store, split(60, 10))


def test_one_stock_never_stops_another(store: BarStore, inbox: Path) -> None:
    symbols = ("AMD", "INTC", "NVDA")
    for symbol in symbols:
        stored(store, 59, symbol)
    feed = Made(dict.fromkeys(symbols, walk(60)), {"AMD": BadInput("unknown")})
    told: list[str] = []
    outcome = fetch_all(
        wanted(store, *map(Instrument, symbols)), feed, store, inbox, told=told.append
    )
    assert outcome.failed == {"AMD": "unknown"}
    assert sorted(outcome.fetched) == ["INTC", "NVDA"]
    assert told == ["AMD: unknown", *(f"{s}: 11 bars to 2023-09-26" for s in ("INTC", "NVDA"))]


def test_a_feed_that_stays_away_is_not_asked_for_every_stock(store: BarStore, inbox: Path) -> None:
    symbols = ("A", "B", "C", "D", "E")
    busy = FeedBusy("Made up does not answer")
    feed = Made(dict.fromkeys(symbols, walk(60)), {"A": busy, "C": busy, "D": busy})
    outcome = fetch_all(wanted(store, *map(Instrument, symbols)), feed, store, inbox)
    assert list(outcome.fetched) == ["B"]
    assert [asked[0] for asked in feed.asked] == ["A", "B", "C", "D"]
    assert outcome.failed["E"] == "not asked for, because Made up does not answer"
