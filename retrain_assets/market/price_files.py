"""Price files as people have them: CSV or Parquet, under many column names, read into one shape.

Nothing is judged here beyond shape: which column is which field, and which rows belong to
which symbol. Dates and numbers are looked at in `stamps.py` and `repairs.py`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow as pa

from retrain_assets.errors import BadInput
from retrain_assets.files import checked_symbol
from retrain_assets.market.bars import VALUE_COLUMNS, is_symbol

# Field -> names it goes by, compared in lower case with blanks for underscores; the first
# name present wins.
_ALIASES = {
    "stamp": (
        *("session", "timestamp", "timestamps", "datetime", "date", "ts", "time", "day"),
        *("index", "unnamed: 0", ""),
    ),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c", "price"),
    "volume": ("volume", "vol", "v"),
    "symbol": ("symbol", "ticker"),
}
_FIELD_NAMES = {name for field in VALUE_COLUMNS for name in _ALIASES[field]}
_ADJUSTED = ("adj close", "adjclose", "adjusted close", "adjusted")
_NO_ALIASES: Mapping[str, str] = MappingProxyType({})
_REQUIRED = ("stamp", "open", "high", "low", "close")
_FIELDS_TEXT = "a date, open, high, low, close and volume"


@dataclass(frozen=True)
class RawBars:
    """The rows of one symbol in a file, unjudged.

    values: the columns `stamp, open, high, low, close, volume` as the file has them (text from
        CSV); the index, called "line" (CSV, counted from 1) or "row" (Parquet, from 0), says
        where each row stands in the file. `volume` is absent where the file has none.
    notes: what was decided while reading, in words.
    """

    symbol: str
    path: Path
    values: pd.DataFrame
    notes: tuple[str, ...]


def read_file(
    path: Path, *, symbol: str | None = None, aliases: Mapping[str, str] = _NO_ALIASES
) -> list[RawBars]:
    """Read a CSV or Parquet file of daily bars, one entry for each symbol in it.

    The symbol is `symbol` if given, else what the file says (a symbol column, or yfinance's
    header of three rows), else the file's name in upper case. `aliases` maps other names, in
    upper case, to the symbols they stand for. Raises BadInput for a file that is no price
    file, and where the symbols in it disagree with the file's own name or `symbol`.
    """
    path = Path(path)
    notes: dict[str, None] = {}  # ordered, each said once
    parts = []
    for ticker, table in _tables(path):
        values, said = _fields(table, path)
        if ticker is not None:
            values["symbol"] = ticker
        notes |= dict.fromkeys(said)
        parts.append(values)
    values = pd.concat(parts)
    if "symbol" in values:
        by_symbol = _by_symbol(values, path, symbol, aliases)
    else:
        by_symbol = {_symbol(symbol if symbol is not None else path.stem, path, aliases): values}
    return [RawBars(name, path, rows, tuple(notes)) for name, rows in by_symbol.items()]


def _tables(path: Path) -> list[tuple[str | None, pd.DataFrame]]:
    """The file's cells under a single header row, with the ticker where the header names it."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder: name the files in it, such as {path}/*.csv")
    readers = {".csv": _read_csv, ".txt": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path} is neither CSV nor Parquet: convert it to one of the two")
    try:
        table = reader(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    if table.empty:
        raise BadInput(f"{path} has no rows: give a file with {_FIELDS_TEXT}")
    if table.columns.nlevels == 1:
        return [(None, table)]
    return _split_levels(table, path)


def _read_csv(path: Path) -> pd.DataFrame:
    """Cells as text; the standard library's reader knows the line of each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            # Comma wins a draw: text around it may hold any of the others.
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is no CSV text: {error}; save it as CSV in UTF-8") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise BadInput(f"{path} is empty: give a file with {_FIELDS_TEXT}")
    width = len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise BadInput(
                f"{path}, line {line}: {len(row)} cells where the header has {width}; is the "
                "file cut off? correct the line or fetch the file again"
            )
    depth = 3 if _has_three_headers([row for _, row in rows[:3]]) else 1
    header = [row for _, row in rows[:depth]]
    # The third row names the date column and nothing else, so its name goes on top.
    columns = header[0] if depth == 1 else pd.MultiIndex.from_tuples(_zipped(header))
    body = rows[depth:]
    lines = pd.Index([line for line, _ in body], name="line", dtype="int64")
    return pd.DataFrame([row for _, row in body], index=lines, columns=columns, dtype="object")


def _has_three_headers(rows: list[list[str]]) -> bool:
    """Whether this is a yfinance download saved with its two column levels: fields, tickers."""
    if len(rows) < 3 or _plain(rows[2][0]) not in _ALIASES["stamp"]:
        return False
    return bool(rows[2][0]) and not any(rows[2][1:]) and all(rows[1][1:])


def _zipped(header: list[list[str]]) -> list[tuple[str, str]]:
    upper, lower, stamp = header
    return [(stamp[0], ""), *zip(upper[1:], lower[1:], strict=True)]


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"{path} is no readable Parquet file: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    table.index = pd.RangeIndex(len(table), name="row")
    return table


def _split_levels(table: pd.DataFrame, path: Path) -> list[tuple[str | None, pd.DataFrame]]:
    """One table for each ticker of a header whose two levels are fields and tickers."""
    if table.columns.nlevels != 2:
        raise BadInput(f"{path} has a header of {table.columns.nlevels} levels: save it with one")
    levels = [[str(name[level]) for name in table.columns] for level in (0, 1)]
    # The date column carries its name in the upper level, whichever that is.
    stamp = [_plain(upper) in _ALIASES["stamp"] for upper in levels[0]]
    if stamp.count(True) != 1:
        raise BadInput(f"{path} has a header of two levels without one date column")
    # Counted once each, for C, L, O and V are tickers too.
    known = [len(_FIELD_NAMES & {_plain(name) for name in level}) for level in levels]
    fields, tickers = levels if known[0] > known[1] else levels[::-1]
    found: list[tuple[str | None, pd.DataFrame]] = []
    for ticker in dict.fromkeys(t for t, dated in zip(tickers, stamp, strict=True) if not dated):
        chosen = [i for i, t in enumerate(tickers) if stamp[i] or t == ticker]
        names = [levels[0][i] if stamp[i] else fields[i] for i in chosen]
        found.append((ticker, table.iloc[:, chosen].set_axis(names, axis=1)))
    return found


def _plain(name: object) -> str:
    return re.sub(r"[\s_]+", " ", str(name)).strip().lower()


def _fields(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Pick and rename the columns of a bars frame; say what was decided on the way."""
    plain = [_plain(name) for name in table.columns]
    picked = _picked(plain, path)
    adjusted = next((name for name in _ADJUSTED if name in plain), None)
    notes = []
    if adjusted is not None and "close" not in picked:
        picked["close"] = plain.index(adjusted)
        notes.append(f"close was taken from {adjusted!r}, the only close in the file")
    elif adjusted is not None:
        notes.append(
            f"took {table.columns[picked['close']]!r} and not {adjusted!r}: it belongs with open, "
            "high and low, while the other is also adjusted for dividends"
        )
    missing = [field if field != "stamp" else "date" for field in _REQUIRED if field not in picked]
    if missing:
        has = ", ".join(str(name) for name in table.columns)
        raise BadInput(
            f"{path} is no price file: it has no column for {', '.join(missing)}, only {has}; "
            f"give a file with {_FIELDS_TEXT}, or rename its columns so"
        )
    left_out = [str(name) for i, name in enumerate(table.columns) if i not in picked.values()]
    if left_out:
        notes.append(f"columns left out: {', '.join(left_out)}")
    return pd.DataFrame({field: table.iloc[:, at] for field, at in picked.items()}), notes


def _picked(plain: list[str], path: Path) -> dict[str, int]:
    """Position of the column of each field that the file has."""
    picked = {}
    for field, names in _ALIASES.items():
        name = next((name for name in names if name in plain), None)
        if name is not None and plain.count(name) > 1:
            raise BadInput(f"{path} has {plain.count(name)} columns called {name!r}: keep one")
        if name is not None:
            picked[field] = plain.index(name)
    return picked


def _by_symbol(
    values: pd.DataFrame, path: Path, symbol: str | None, aliases: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """The rows of each symbol; refuses a file whose own name says something else."""
    named = values.pop("symbol")
    empty = named.isna() | (named.astype(str) == "")
    if empty.any():
        row = named.index[empty][0]
        raise BadInput(f"{path}, {named.index.name} {row}, symbol: empty; fill it in")
    meaning = {name: _symbol(name, path, aliases) for name in dict.fromkeys(named.astype(str))}
    names = named.astype(str).map(meaning).to_numpy()
    present = list(dict.fromkeys(meaning.values()))
    expected = _symbol(symbol, path, aliases) if symbol is not None else None
    if expected is None and is_symbol(path.stem):
        claimed = aliases.get(path.stem, path.stem)
        # A name such as US.csv claims nothing for a file of many symbols without US.
        expected = claimed if len(present) == 1 or claimed in present else None
    if expected is not None and present != [expected]:
        strange = [at for at, name in enumerate(names) if name != expected]
        said = "--symbol says" if symbol is not None else "the file's name says"
        raise BadInput(
            f"{path}, {named.index.name} {named.index[strange[0]]}, symbol: {names[strange[0]]} "
            f"where {said} {expected} ({len(strange)} of {len(names)} rows differ); remove the "
            "rows of the other symbol, or list its name under aliases in universe.yaml if both are "
            "one, or, if the rows are right, rename the file in lower case and leave --symbol out"
        )
    return {name: values[names == name] for name in present}


def _symbol(name: str, path: Path, aliases: Mapping[str, str]) -> str:
    plain = name.strip().upper()
    try:
        # Coins come as BTC/USD; with any other slash it is a path, which the check refuses.
        pair = re.sub(r"^([A-Z0-9]+)/([A-Z0-9]+)$", r"\1\2", aliases.get(plain, plain))
        return checked_symbol(pair)
    except BadInput as error:
        raise BadInput(f"{path}: {error}; name it with --symbol or in the symbol column") from error
