"""Importing: several files and symbols at once, and how new bars meet stored ones."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BarStore, content_hash
from retrain_assets.market.importing import ImportFailure, ImportReport, import_files
from retrain_assets_tests.market.made import (
    NOW,
    PRICES,
    csv,
    refused,
    said,
    same,
    take,
    taken,
    walk,
)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_imported_to_the_last_bit(tmp_path: Path, store: BarStore, suffix: str) -> None:
    bars, path = walk(), tmp_path / f"NVDA.{suffix}"
    bars.to_csv(path, index=False) if suffix == "csv" else bars.to_parquet(path)
    report = taken(path, store)
    assert same(store, bars)
    assert report.content_hash == content_hash(bars)
    assert (report.symbol, report.bars, report.added, report.changed) == ("NVDA", 40, 40, 0)
    assert (report.first, report.last) == (bars["session"].iloc[0], bars["session"].iloc[-1])
    assert (report.repairs, report.warnings) == ((), ())
    assert (
        str(report)
        == "NVDA: 40 bars 2023-07-03 to 2023-08-28 (40 new, 0 changed) from " + path.name
    )


def test_float32_parquet_stays_consistent(tmp_path: Path, store: BarStore) -> None:
    bars = walk().astype(dict.fromkeys(PRICES, "float32"))
    bars.to_parquet(tmp_path / "NVDA.parquet")
    taken(tmp_path / "NVDA.parquet", store)
    assert same(store, bars)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(12)), repeated=st.lists(st.integers(0, 11), max_size=4))
def test_any_order_and_repetition_of_rows_makes_the_same_bars(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], repeated: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("order")
    path = csv(folder / "NVDA.csv", walk(12).iloc[[*order, *repeated]])
    taken(path, BarStore(folder / "store"))
    assert same(BarStore(folder / "store"), walk(12))


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7, 8, 10, 20])
def test_splits_not_adjusted_are_refused(tmp_path: Path, store: BarStore, factor: int) -> None:
    bars = walk()
    bars.loc[:19, PRICES] *= factor
    path = csv(tmp_path / "NVDA.csv", bars)
    error = refused(path, store)
    assert "the close of NVDA leaps; fetch split-adjusted prices" in error
    assert "--accept-jumps" in error
    assert "line 22, 2023-08-01: close is 1/" in error
    report = taken(path, store, accept_jumps=True)
    assert report.repairs[0].startswith("accepted: 2023-08-01: close is 1/")
    # Accepted once, it need not be accepted again.
    assert taken(path, store).repairs == ()


def test_a_wrong_coin_under_the_right_name_is_refused(tmp_path: Path, store: BarStore) -> None:
    right = walk(calendar="24/7", level=6.2)
    taken(csv(tmp_path / "UNIUSD.csv", right), store, calendar="24/7")
    random = np.random.default_rng(3).normal(0, 0.1, 40)
    wrong = right.copy()
    wrong[PRICES] = right[PRICES].mul(0.0013 / 6.2 * np.exp(np.cumsum(random)), axis=0)
    path = csv(tmp_path / "UNIUSD.csv", wrong)
    error = refused(path, store, calendar="24/7")
    assert "in 40 stored sessions the closes of UNIUSD are off by 100.0 % in the median" in error
    assert "another instrument? (first line 2, 2023-07-01: close 0.00" in error
    assert "replace the whole history with --replace" in error
    assert same(store, right, "UNIUSD")

    # Where no session is stored yet, the leap to the right prices gives it away.
    both = pd.concat([wrong.iloc[:20], right.iloc[20:]])
    empty = BarStore(tmp_path / "empty")
    assert "another instrument, or another unit?" in refused(
        csv(tmp_path / "UNIUSD.csv", both), empty, calendar="24/7"
    )


def test_a_summary_among_the_price_files_stops_no_other(tmp_path: Path, store: BarStore) -> None:
    summary = tmp_path / "data_summary.csv"
    summary.write_text("symbol,latest_date,total_rows\nNVDA,2025-10-31,1707\n")
    paths = [summary, csv(tmp_path / "NVDA.csv", walk())]
    first, second = import_files(paths, store, calendar_of=lambda _: "XNYS", now=NOW)
    assert isinstance(first, ImportFailure)
    assert first.symbol is None
    assert "is no price file: it has no column for date, open, high, low, close" in first.error
    assert str(first).startswith("data_summary.csv: refused\n  ")
    assert isinstance(second, ImportReport)
    assert store.symbols() == ["NVDA"]


def test_an_unknown_symbol_or_calendar_is_refused_and_the_others_go_on(
    tmp_path: Path, store: BarStore
) -> None:
    rows = pd.concat([walk().assign(symbol=name) for name in ("AMD", "NVDA", "XYZ")])

    def calendar_of(symbol: str) -> str:
        if symbol == "XYZ":
            raise BadInput("XYZ is not in the universe")
        return "XNYS" if symbol == "NVDA" else "NYSE2"

    path = csv(tmp_path / "stocks.csv", rows)
    results = import_files([path], store, calendar_of=calendar_of, now=NOW)
    assert [type(result) for result in results] == [ImportFailure, ImportReport, ImportFailure]
    assert str(results[0]).startswith("AMD: refused\n  'NYSE2' is no known calendar")
    assert str(results[2]) == "XYZ: refused\n  XYZ is not in the universe"
    assert store.symbols() == ["NVDA"]


def test_a_store_that_cannot_be_written_is_a_failure_like_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    result = take(csv(tmp_path / "NVDA.csv", walk()), BarStore(tmp_path / "store"))
    assert isinstance(result, ImportFailure)
    assert "store" in result.error
    assert "make room on the disk, or see to the permissions" in result.error


def test_newer_bars_extend_the_history(tmp_path: Path, store: BarStore) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk().iloc[:30]), store)
    report = taken(csv(tmp_path / "NVDA.csv", walk().iloc[25:]), store)
    assert (report.bars, report.added, report.changed) == (40, 10, 0)
    assert same(store, walk())
    assert taken(csv(tmp_path / "NVDA.csv", walk().iloc[25:]), store).added == 0


def test_older_bars_extend_the_history_too(tmp_path: Path, store: BarStore) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk().iloc[30:]), store)
    taken(csv(tmp_path / "NVDA.csv", walk().iloc[:30]), store)
    assert same(store, walk())


def test_slightly_readjusted_closes_take_the_place_of_the_stored_ones(
    tmp_path: Path, store: BarStore
) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk()), store)
    newer = walk().iloc[20:]
    newer = newer.assign(**{name: newer[name] * 0.9915 for name in PRICES})
    report = taken(csv(tmp_path / "NVDA.csv", newer), store)
    assert report.changed == 20
    assert "by 0.85 % in the median of the common sessions (20): the file's were taken" in said(
        report
    )
    assert same(store, pd.concat([walk().iloc[:20], newer]))


def test_another_base_of_adjustment_needs_replace(tmp_path: Path, store: BarStore) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk()), store)
    old = content_hash(walk())
    newer = walk(60)
    newer[PRICES] /= 10
    path = csv(tmp_path / "NVDA.csv", newer)
    error = refused(path, store)
    assert "closes of NVDA are throughout about 0.1 x the stored ones: adjusted for other" in error
    report = taken(path, store, replace=True)
    assert (report.added, report.changed) == (20, 40)
    assert same(store, newer)
    assert (store.root / ".history" / f"NVDA.{old[:12]}.parquet").exists()


def test_single_closes_far_from_the_stored_ones_are_named(tmp_path: Path, store: BarStore) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk()), store)
    bad = walk()
    bad.loc[11, PRICES] *= 1.4
    error = refused(csv(tmp_path / "NVDA.csv", bad), store)
    assert "closes of NVDA far from the stored ones (1): line 13 (2023-07-19): close" in error


def test_bars_that_neither_overlap_nor_follow_are_refused(tmp_path: Path, store: BarStore) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk().iloc[:20]), store)
    near, far = walk().iloc[25:], walk().iloc[26:]
    error = refused(csv(tmp_path / "NVDA.csv", far), store)
    assert "no session is in both to tell whether they are adjusted alike, and 6 sessions" in error
    taken(csv(tmp_path / "NVDA.csv", near), store)
    assert same(store, walk().drop(index=range(20, 25)))


def test_a_split_between_stored_and_new_bars_is_refused(tmp_path: Path, store: BarStore) -> None:
    taken(csv(tmp_path / "NVDA.csv", walk().iloc[:20]), store)
    newer = walk().iloc[20:].copy()
    newer[PRICES] /= 4
    assert "line 2, 2023-08-01: close is 1/4" in refused(csv(tmp_path / "NVDA.csv", newer), store)


def test_imports_of_one_symbol_at_once_lose_no_bar(tmp_path: Path, store: BarStore) -> None:
    bars = walk(240)
    parts = [csv(tmp_path / f"part{i}.csv", bars.iloc[i::8]) for i in range(8)]
    taken(csv(tmp_path / "NVDA.csv", bars.iloc[::60]), store)
    start = threading.Barrier(len(parts))
    results = []

    def run(path: Path) -> None:
        start.wait()
        results.append(take(path, BarStore(store.root), symbol="NVDA", replace=False))

    threads = [threading.Thread(target=run, args=(path,)) for path in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(result) for result in results] == [ImportReport] * len(parts)
    assert same(store, bars)
