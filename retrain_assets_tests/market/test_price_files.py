"""The shapes of price files people have: names of columns, headers, symbols."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.market.price_files import read_file
from retrain_assets_tests.market.made import csv, walk

LINE = "2023-07-03,1,3,0.5,2,100\n"


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def error_of(path: Path, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        read_file(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,open,high,low,close,volume",
        "timestamps,Open,High,Low,Close,Volume",
        "Date,OPEN,HIGH,LOW,CLOSE,VOLUME",
        "Datetime,o,h,l,c,v",
        "ts,open,high,low,price,vol",
        "time,Open,High,Low,Price,Vol",
        "index,open,high,low,close,volume",
        ",open,high,low,close,volume",
        "Unnamed: 0,open,high,low,close,volume",
        "\ufeffDate , Open, High , Low, Close, Volume",
    ],
)
def test_columns_go_by_many_names(tmp_path: Path, header: str) -> None:
    (raw,) = read_file(text(tmp_path / "nvda.csv", f"{header}\n{LINE}"))
    assert raw.symbol == "NVDA"
    assert set(raw.values.columns) == {"stamp", "open", "high", "low", "close", "volume"}
    row = raw.values.loc[2]
    assert dict(row) == {
        "stamp": "2023-07-03",
        "open": "1",
        "high": "3",
        "low": "0.5",
        "close": "2",
        "volume": "100",
    }
    assert raw.values.index.name == "line"
    assert raw.notes == ()


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_seen(tmp_path: Path, delimiter: str) -> None:
    content = f"date,open,high,low,close,volume\n{LINE}".replace(",", delimiter)
    (raw,) = read_file(text(tmp_path / "NVDA.csv", content))
    assert raw.values.loc[2, "close"] == "2"


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = f"date,open,high,low,close,volume\n\n{LINE}\n,,,,,\n{LINE}"
    (raw,) = read_file(text(tmp_path / "NVDA.csv", content))
    assert list(raw.values.index) == [3, 6]


def test_further_columns_are_left_out_and_named(tmp_path: Path) -> None:
    path = csv(tmp_path / "NVDA.csv", walk(3), trade_count=5, vwap=1.5)
    assert read_file(path)[0].notes == ("columns left out: trade_count, vwap",)


def test_the_close_that_belongs_with_the_other_prices_is_taken(tmp_path: Path) -> None:
    bars = walk(3).rename(columns={"close": "Close"})
    (raw,) = read_file(csv(tmp_path / "NVDA.csv", bars, **{"Adj Close": bars["Close"] * 0.97}))
    assert list(raw.values["close"].astype(float)) == list(bars["Close"])
    assert raw.notes[0].startswith("took 'Close' and not 'adj close': it belongs with open")
    (raw,) = read_file(csv(tmp_path / "NVDA.csv", walk(3).rename(columns={"close": "Adj Close"})))
    assert raw.notes == ("close was taken from 'adj close', the only close in the file",)


def test_a_summary_among_the_price_files_is_no_price_file(tmp_path: Path) -> None:
    path = text(
        tmp_path / "data_summary.csv", "symbol,latest_date,total_rows\nAAPL,2025-10-31,1707\n"
    )
    error = error_of(path)
    assert "is no price file: it has no column for date, open, high, low, close, only" in error
    assert "symbol, latest_date, total_rows; give a file with a date, open" in error


def test_closes_alone_are_not_enough(tmp_path: Path) -> None:
    error = error_of(text(tmp_path / "NVDA.csv", "date,close\n2023-07-03,1\n"))
    assert "no column for open, high, low, only date, close" in error


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = text(tmp_path / "NVDA.csv", f"date,open,high,low,close,Close\n{LINE}")
    assert "has 2 columns called 'close': keep one" in error_of(path)


YFINANCE = (
    "Price,Close,High,Low,Open,Volume\n"
    "Ticker,NVDA,NVDA,NVDA,NVDA,NVDA\n"
    "Date,,,,,\n"
    "2023-07-03,2,3,0.5,1,100\n"
)


def test_headers_in_three_rows(tmp_path: Path) -> None:
    (raw,) = read_file(text(tmp_path / "download.csv", YFINANCE))
    assert raw.symbol == "NVDA"
    assert dict(raw.values.loc[4, ["stamp", "open", "close"]]) == {
        "stamp": "2023-07-03",
        "open": "1",
        "close": "2",
    }


@pytest.mark.parametrize("tickers_first", [False, True])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_headers_of_two_levels_and_several_tickers(
    tmp_path: Path, tickers_first: bool, suffix: str
) -> None:
    one, two = (
        walk(5, level=level).set_index("session").rename_axis("Date") for level in (50, 200)
    )
    table = pd.concat({"V": one, "NVDA": two}, axis=1, names=["Ticker", "Price"])
    if not tickers_first:
        table = table.swaplevel(axis=1)
    path = tmp_path / f"download.{suffix}"
    table.to_csv(path) if suffix == "csv" else table.to_parquet(path)
    found = {raw.symbol: raw.values for raw in read_file(path)}
    assert list(found) == ["V", "NVDA"]
    assert list(found["V"]["close"].astype(float)) == list(one["close"])
    assert list(found["NVDA"]["high"].astype(float)) == list(two["high"])


def test_parquet_with_dates_in_the_index(tmp_path: Path) -> None:
    bars = walk(4)
    for name in ("timestamp", None):
        path = tmp_path / "NVDA.parquet"
        bars.set_index("session").rename_axis(name).to_parquet(path)
        (raw,) = read_file(path)
        assert list(raw.values["stamp"]) == list(bars["session"])
        assert raw.values.index.name == "row"
    bars.assign(symbol="NVDA").set_index(["symbol", "session"]).to_parquet(path)
    assert read_file(path)[0].symbol == "NVDA"


def test_the_symbol_is_given_or_in_a_column_or_the_name(tmp_path: Path) -> None:
    path = csv(tmp_path / "brk.b.csv", walk(3))
    assert read_file(path)[0].symbol == "BRK.B"
    assert read_file(path, symbol="brk-b")[0].symbol == "BRK-B"
    assert (
        read_file(csv(tmp_path / "prices_1.csv", walk(3), symbol="ETH/USD"))[0].symbol == "ETHUSD"
    )
    error = error_of(csv(tmp_path / "prices_1.csv", walk(3)))
    assert "'PRICES_1' is no usable symbol" in error
    assert "name it with --symbol or in the symbol column" in error


def test_an_alias_means_its_symbol(tmp_path: Path) -> None:
    aliases = {"FB": "META", "BTC-USD": "BTCUSD"}
    mixed = walk(4).assign(ticker=["FB", "FB", "META", "META"])
    (raw,) = read_file(csv(tmp_path / "META.csv", mixed), aliases=aliases)
    assert (raw.symbol, len(raw.values)) == ("META", 4)
    assert read_file(csv(tmp_path / "FB.csv", walk(3)), aliases=aliases)[0].symbol == "META"
    path = csv(tmp_path / "BTCUSD.csv", walk(3), symbol="BTC-USD")
    assert read_file(path, aliases=aliases)[0].symbol == "BTCUSD"
    assert "list its name under aliases" in error_of(path)


def test_several_symbols_may_share_a_file(tmp_path: Path) -> None:
    rows = pd.concat([walk(3).assign(symbol="NVDA"), walk(2, level=50).assign(symbol="AMD")])
    rows = rows.sort_values("session")
    for stem in ("stocks_daily", "US"):
        found = {raw.symbol: raw.values for raw in read_file(csv(tmp_path / f"{stem}.csv", rows))}
        assert {name: len(values) for name, values in found.items()} == {"NVDA": 3, "AMD": 2}
    assert list(found["AMD"].index) == [3, 5]


def test_a_mixed_up_ticker_history_is_refused(tmp_path: Path) -> None:
    other = csv(tmp_path / "NVDA.csv", walk(3), symbol="AMD")
    error = error_of(other)
    assert "line 2, symbol: AMD where the file's name says NVDA (3 of 3 rows differ)" in error
    assert "remove the rows of the other symbol" in error
    assert read_file(other, symbol="AMD")[0].symbol == "AMD"

    mixed = csv(tmp_path / "NVDA.csv", walk(3).assign(symbol=["NVDA", "AMD", "NVDA"]))
    assert "line 3, symbol: AMD where the file's name says NVDA (1 of 3 rows differ)" in error_of(
        mixed
    )
    assert "line 3, symbol: AMD where --symbol says NVDA" in error_of(mixed, symbol="NVDA")

    empty = csv(tmp_path / "prices.csv", walk(3).assign(symbol=["NVDA", "", "NVDA"]))
    assert "line 3, symbol: empty; fill it in" in error_of(empty)


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    assert "does not exist" in error_of(tmp_path / "NVDA.csv")
    assert "does not exist" in error_of(tmp_path / "NVDA.parquet")
    assert "is a folder: name the files in it" in error_of(tmp_path)
    assert "is neither CSV nor Parquet" in error_of(text(tmp_path / "NVDA.xlsx", ""))
    assert "is empty: give a file with a date" in error_of(text(tmp_path / "a.csv", "\n\n"))
    assert "has no rows" in error_of(text(tmp_path / "a.csv", "date,open,high,low,close\n"))
    cut_off = f"date,open,high,low,close,volume\n{LINE}2023-07-05,1,3"
    assert "line 3: 3 cells where the header has 6; is the file cut off?" in error_of(
        text(tmp_path / "a.csv", cut_off)
    )
    (tmp_path / "a.csv").write_bytes(b"date,open\xff\xfe\n")
    assert "is no CSV text" in error_of(tmp_path / "a.csv")
    assert "is no readable Parquet file" in error_of(text(tmp_path / "a.parquet", "PAR1"))
