"""Every defect seen in real files, by name: mended and said, or refused and said where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from retrain_assets.market.bars import BarStore
from retrain_assets.market.price_files import read_file
from retrain_assets.market.repairs import clean
from retrain_assets_tests.market.made import NOW, PRICES, csv, refused, said, same, taken, walk


def test_nan_rows_are_dropped(tmp_path: Path, store: BarStore) -> None:
    bars = walk()
    bars.loc[[5, 9], [*PRICES, "volume"]] = np.nan
    bars.loc[20, PRICES] = np.nan  # the volume alone is no price
    report = taken(csv(tmp_path / "NVDA.csv", bars), store)
    assert report.repairs == ("dropped rows without any price (3): line 7, 11, 22",)
    assert report.warnings == ("missing sessions (3): 2023-07-11, 2023-07-17, 2023-08-01",)
    assert same(store, walk().drop(index=[5, 9, 20]))


def test_a_row_with_some_prices_missing_is_refused(tmp_path: Path, store: BarStore) -> None:
    bars = walk()
    bars.loc[5, "open"] = np.nan
    error = refused(csv(tmp_path / "NVDA.csv", bars), store)
    assert "line 7 (2023-07-11), open: nan is empty or no number; correct the row" in error


def test_a_file_of_nan_rows_alone_is_refused(tmp_path: Path, store: BarStore) -> None:
    bars = walk(3).assign(open=np.nan, high=np.nan, low=np.nan, close=np.nan)
    assert "no row of NVDA has a price" in refused(csv(tmp_path / "NVDA.csv", bars), store)


def test_prices_swapped_in_one_row_are_refused(tmp_path: Path, store: BarStore) -> None:
    bars = walk()
    bars.loc[8, ["high", "low"]] = bars.loc[8, ["low", "high"]].to_numpy()
    error = refused(csv(tmp_path / "NVDA.csv", bars), store)
    assert "line 10 (2023-07-14), low:" in error
    assert "line 10 (2023-07-14), high:" in error
    assert "are columns swapped? correct the row" in error


def test_a_high_off_by_rounding_is_widened(tmp_path: Path, store: BarStore) -> None:
    bars = walk()
    bars.loc[8, "high"] = bars.loc[8, ["open", "close"]].max() * (1 - 1e-7)
    bars.loc[9, "low"] = bars.loc[9, ["open", "close"]].min() * (1 + 1e-7)
    report = taken(csv(tmp_path / "NVDA.csv", bars), store)
    assert "highs and lows off by rounding (2)" in said(report)
    stored = store.read("NVDA")
    assert stored.loc[8, "high"] == bars.loc[8, ["open", "close"]].max()
    assert stored.loc[9, "low"] == bars.loc[9, ["open", "close"]].min()


def test_forward_filled_days_that_are_no_sessions_are_dropped(
    tmp_path: Path, store: BarStore
) -> None:
    # Every calendar day, weekends and the fourth of July included, as index files often have.
    days = pd.date_range("2023-07-03", "2023-08-28", name="session")
    filled = walk().set_index("session").reindex(days, method="ffill").reset_index()
    report = taken(csv(tmp_path / "NVDA.csv", filled), store)
    assert "dropped forward-filled days that are no XNYS sessions (17): line 3, 7, 8" in said(
        report
    )
    assert same(store, walk())


def test_real_prices_on_days_that_are_no_sessions_are_refused(
    tmp_path: Path, store: BarStore
) -> None:
    path = csv(tmp_path / "BTCUSD.csv", walk(calendar="24/7"))
    error = refused(path, store)
    assert "(2023-07-01), session: 2023-07-01 is no session of the calendar" in error
    assert "give the symbol its own calendar in universe.yaml" in error
    assert taken(path, store, calendar="24/7").bars == 40


def test_repeated_rows_are_dropped(tmp_path: Path, store: BarStore) -> None:
    path = csv(tmp_path / "NVDA.csv", walk().iloc[[0, 1, 1, *range(2, 40), 39]])
    assert taken(path, store).repairs == (
        "dropped rows that repeat another exactly (2): line 4, 43",
    )
    assert same(store, walk())


def test_stamps_with_two_different_bars_are_refused(tmp_path: Path, store: BarStore) -> None:
    bars = pd.concat([walk(), walk().iloc[[7]].assign(volume=1.0)])
    error = refused(csv(tmp_path / "NVDA.csv", bars), store)
    assert "line 9 (2023-07-13), line 42 (2023-07-13) share a session and differ in volume" in error
    assert "keep the right row of each session" in error


def test_weeks_without_volume_while_prices_move_are_refused(
    tmp_path: Path, store: BarStore
) -> None:
    bars = walk()
    bars.loc[10:24, "volume"] = 0.0
    error = refused(csv(tmp_path / "NVDA.csv", bars), store)
    assert "from line 12, volume: 0 for weeks while prices move (2023-07-18 to 2023-08-07)" in error
    assert "get the volumes, or remove the column volume" in error
    without = csv(tmp_path / "NVDA.csv", bars.drop(columns="volume"))
    assert taken(without, store).repairs == ("the file has no volume: set to 0",)
    assert (store.read("NVDA")["volume"] == 0).all()


def test_weeks_in_which_a_bar_is_only_repeated_are_dropped(tmp_path: Path, store: BarStore) -> None:
    bars = walk()
    for name in PRICES:
        bars.loc[10:24, name] = bars.loc[9, "close"]
    bars.loc[10:24, "volume"] = 0.0
    report = taken(csv(tmp_path / "NVDA.csv", bars), store)
    assert "dropped sessions of weeks in which a bar is only repeated (15): line 12, 13" in said(
        report
    )
    assert same(store, walk().drop(index=range(10, 25)))
    assert report.warnings == ("missing sessions (15): 2023-07-18 to 2023-08-07",)


def test_a_few_sessions_without_volume_are_kept_and_pointed_out(
    tmp_path: Path, store: BarStore
) -> None:
    bars = walk()
    bars.loc[10:15, "volume"] = 0.0
    report = taken(csv(tmp_path / "NVDA.csv", bars), store)
    assert report.warnings == (
        "long runs of sessions without volume (6): 2023-07-18 to 2023-07-25",
    )
    assert same(store, bars)


def test_descending_order_is_sorted(tmp_path: Path, store: BarStore) -> None:
    report = taken(csv(tmp_path / "NVDA.csv", walk()[::-1]), store)
    assert report.repairs == ("rows were newest first: sorted by session",)
    assert same(store, walk())


def test_a_mixed_up_ticker_history_is_refused(tmp_path: Path, store: BarStore) -> None:
    named = walk().assign(symbol=["NVDA"] * 20 + ["AMD"] * 20)
    assert "line 22, symbol: AMD where the file's name says NVDA" in refused(
        csv(tmp_path / "NVDA.csv", named), store
    )
    # Without a symbol column, another instrument's rows show as a leap and a leap back.
    unnamed = walk()
    unnamed.loc[12:18, PRICES] /= 4.1
    assert "line 14, 2023-07-20: close is 1/4" in (
        error := refused(csv(tmp_path / "NVDA.csv", unnamed), store)
    )
    assert "returns on 2023-07-31: rows of another instrument?" in error


def test_headers_in_three_rows_are_read(tmp_path: Path, store: BarStore) -> None:
    bars = walk().set_index("session").rename_axis("Date")
    table = pd.concat({"NVDA": bars.rename(columns=str.title)}, axis=1, names=["Ticker", "Price"])
    table.swaplevel(axis=1).to_csv(tmp_path / "download.csv")
    assert (tmp_path / "download.csv").read_text().startswith("Price,Open,High,Low,Close,Volume\n")
    taken(tmp_path / "download.csv", store)
    assert same(store, walk())


def test_time_stamps_without_a_zone_are_taken_as_local_dates(
    tmp_path: Path, store: BarStore
) -> None:
    bars = walk()
    report = taken(
        csv(tmp_path / "NVDA.csv", bars, session=bars["session"] + pd.Timedelta(hours=16)), store
    )
    assert report.repairs == ("time stamps have no zone: their dates were taken as the exchange's",)
    assert same(store, bars)


def test_time_stamps_in_utc_become_exchange_dates(tmp_path: Path, store: BarStore) -> None:
    bars = walk()
    local = bars["session"].dt.tz_localize("America/New_York").dt.tz_convert("UTC")
    taken(csv(tmp_path / "NVDA.csv", bars, session=local), store)
    assert same(store, bars)
    label = bars["session"].dt.tz_localize("UTC")
    assert taken(csv(tmp_path / "NVDA.csv", bars, session=label), store).changed == 0


def test_text_among_the_numbers_is_named(tmp_path: Path, store: BarStore) -> None:
    bars = walk().astype({"open": object, "volume": object})
    bars.loc[3, "open"], bars.loc[4, "volume"] = "$101.5", "1,234"
    error = refused(csv(tmp_path / "NVDA.csv", bars), store)
    assert "no number in line 5, open: '$101.5'; line 6, volume: '1,234'; write plain" in error


def test_intraday_bars_are_refused(tmp_path: Path, store: BarStore) -> None:
    bars = walk().loc[np.repeat(range(40), 2)].reset_index(drop=True)
    hours = pd.to_timedelta(np.tile([9, 10], 40), unit="h")
    error = refused(csv(tmp_path / "NVDA.csv", bars, session=bars["session"] + hours), store)
    assert "these are intraday bars; combine them into one bar a session first" in error


def test_the_running_session_is_left_out_until_it_closes(tmp_path: Path, store: BarStore) -> None:
    path = csv(tmp_path / "NVDA.csv", walk())  # ends 2023-08-28, closing at 20:00 UTC
    before = taken(path, store, now=pd.Timestamp("2023-08-28 19:59", tz="UTC"))
    assert before.repairs == ("dropped bars of a session that has not closed yet (1): line 41",)
    assert before.last == pd.Timestamp("2023-08-25")
    after = taken(path, store, now=pd.Timestamp("2023-08-28 20:00", tz="UTC"))
    assert (after.repairs, after.added, after.changed) == ((), 1, 0)


def test_dates_in_the_future_are_refused(tmp_path: Path, store: BarStore) -> None:
    error = refused(
        csv(tmp_path / "NVDA.csv", walk()), store, now=pd.Timestamp("2023-08-24 22:00", tz="UTC")
    )
    assert "line 40, session: 2023-08-25 lies in the future (today is 2023-08-24)" in error


def test_cleaning_says_where_each_bar_stood(tmp_path: Path) -> None:
    path = csv(tmp_path / "NVDA.csv", walk(5)[::-1])
    cleaned = clean(read_file(path)[0], "XNYS", now=NOW)
    pd.testing.assert_frame_equal(cleaned.bars, walk(5))
    assert list(cleaned.lines) == [6, 5, 4, 3, 2]
    assert cleaned.lines.name == "line"
