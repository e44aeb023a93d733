"""The bar store: one Parquet file a symbol, written whole or not at all, with a content hash.

A bars frame is a pandas DataFrame with a RangeIndex, one row a session, ascending and unique,
with exactly the columns `BAR_COLUMNS`: `session` (datetime64[ns], tz-naive midnight, the
exchange-local date) and `open, high, low, close, volume` (float64).
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from retrain_assets.errors import BadInput
from retrain_assets.files import atomic_file, checked_symbol, exclusive

VALUES = {
    "open": "First price of the session, adjusted for splits.",
    "high": "Highest price.",
    "low": "Lowest price.",
    "close": "Last price, which is what forecasts are held against.",
    "volume": "Shares or coins traded.",
}
VALUE_COLUMNS = tuple(VALUES)
BAR_COLUMNS = ("session", *VALUE_COLUMNS)

# The tag changes whenever the encoding does, so that hashes of two encodings never meet.
_HASH_TAG = b"retrain-assets bars 1\n"
_FILE_SCHEMA = pa.schema(
    [("session", pa.timestamp("ns")), *((name, pa.float64()) for name in VALUE_COLUMNS)]
)
# Prices rarely repeat, so Parquet's default dictionaries would nearly double a file.
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 19,
    "use_dictionary": False,
    "column_encoding": {"session": "DELTA_BINARY_PACKED"},
}
_LOCK_SECONDS = 60.0


def content_hash(bars: pd.DataFrame) -> str:
    """Return the SHA-256 (hex) of the values of `bars`, whatever file they came from.

    Hashed are a version tag, the column names, the number of rows, then column by column the
    sessions (int64 nanoseconds since 1970) and the values (float64), both little-endian. So
    the hash of a history up to a cut does not depend on later bars.
    """
    digest = hashlib.sha256(_HASH_TAG)
    digest.update(f"{','.join(BAR_COLUMNS)}\n{len(bars)}\n".encode())
    sessions = bars["session"].to_numpy(dtype="datetime64[ns]")
    digest.update(sessions.astype("<i8").tobytes())
    for name in VALUE_COLUMNS:
        # Adding zero turns -0.0 into 0.0, which is the same volume.
        digest.update((bars[name].to_numpy(dtype="<f8") + 0.0).astype("<f8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class StoredBars:
    """What is known of a stored history without reading its rows.

    content_hash: see `content_hash`. bars: their number. last: session of the last one.
    """

    content_hash: str
    bars: int
    last: pd.Timestamp


class BarStore:
    """Bars of many symbols under one folder: `<root>/<SYMBOL>.parquet`.

    Readers never wait: a file is replaced by renaming, so they see the old bars or the new
    ones. Writers of one symbol take turns. What a write replaces is kept as
    `<root>/.history/<SYMBOL>.<first 12 of its hash>.parquet`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def symbols(self) -> list[str]:
        """Return the stored symbols, sorted; files whose name is no symbol are not bars."""
        return sorted(path.stem for path in self.root.glob("*.parquet") if is_symbol(path.stem))

    def has(self, symbol: str) -> bool:
        """Say whether bars of `symbol` are stored."""
        return self._path(symbol).is_file()

    def read(self, symbol: str, *, until: pd.Timestamp | None = None) -> pd.DataFrame:
        """Return the bars of `symbol`, up to and including the session `until` if given.

        Raises BadInput for a symbol without bars, and for a file that is no bars file.
        """
        table = self._read_table(symbol)
        bars = pd.DataFrame(
            {name: table.column(name).to_numpy() for name in BAR_COLUMNS}, copy=False
        )
        if until is None:
            return bars
        return bars[bars["session"] <= until].reset_index(drop=True)

    def stored(self, symbol: str) -> StoredBars:
        """Return hash, number and last session of the bars of `symbol`, from the file's footer.

        A file that does not say them is read whole. Raises BadInput like `read`, and for a file
        without any bar.
        """
        metadata = self._open(symbol).metadata
        written = (metadata.metadata or {}).get(b"content_hash", b"").decode()
        groups = [metadata.row_group(group).column(0) for group in range(metadata.num_row_groups)]
        if written and groups and all(g.is_stats_set and g.statistics.has_min_max for g in groups):
            last = max(pd.Timestamp(group.statistics.max) for group in groups)
            return StoredBars(written, metadata.num_rows, last)
        bars = self.read(symbol)
        if bars.empty:
            raise BadInput(f"{self._path(symbol)} holds no bar: {_REIMPORT}")
        return StoredBars(content_hash(bars), len(bars), bars["session"].iloc[-1])

    def sessions(self, symbol: str) -> pd.DatetimeIndex:
        """Return the stored sessions of `symbol`, ascending; raises BadInput like `read`."""
        try:
            table = self._open(symbol).read(columns=["session"])
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(symbol, error) from error
        return pd.DatetimeIndex(table.column("session").to_numpy())

    def source(self, symbol: str) -> str:
        """Return where the stored bars of `symbol` came from, as told to `write`."""
        metadata = self._read_table(symbol).schema.metadata or {}
        return str(metadata.get(b"source", b"").decode())

    def write(
        self, symbol: str, bars: pd.DataFrame, *, source: str, calendar: str | None = None
    ) -> str:
        """Replace the bars of `symbol` and return their content hash.

        `source` says where they came from; with `calendar`, every row must be one of its
        sessions. Bars equal to the stored ones leave the file as it is. Raises BadInput for
        bars that do not fit the schema (nothing is sorted or repaired here), and OSError,
        with the old file in place, when the disk is full.
        """
        # Imported here because readers need no validation, and pandera is slow to import.
        from retrain_assets.market.schema import validate

        path = self._path(symbol)
        bars = validate(bars, symbol=symbol, calendar=calendar, where=source)
        new = content_hash(bars)
        with self.lock(symbol):
            if path.exists():
                old = content_hash(self.read(symbol))
                if old == new:
                    return new
                _copy(path, self.root / ".history" / f"{symbol}.{old[:12]}.parquet")
            table = pa.table([bars[name].to_numpy() for name in BAR_COLUMNS], schema=_FILE_SCHEMA)
            table = table.replace_schema_metadata({"source": source, "content_hash": new})
            with atomic_file(path) as partial:
                pq.write_table(table, partial, **_ENCODING)
        return new

    def lock(self, symbol: str) -> AbstractContextManager[None]:
        """Hold the right to write `symbol`; `write` may be called inside.

        Raises BadInput when another process holds it for over a minute.
        """
        path = self.root / ".locks" / f"{checked_symbol(symbol)}.lock"
        busy = f"bars of {symbol} are being written by another process"
        return exclusive(path, seconds=_LOCK_SECONDS, busy=busy)

    def _path(self, symbol: str) -> Path:
        return self.root / f"{checked_symbol(symbol)}.parquet"

    def _open(self, symbol: str) -> pq.ParquetFile:
        """The file of a symbol, of which only the footer has been read."""
        path = self._path(symbol)
        try:
            file = pq.ParquetFile(path)
        except FileNotFoundError as error:
            raise BadInput(
                f"no bars of {symbol} in {self.root}: import them with `retrain import FILE`"
            ) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(symbol, error) from error
        if not file.schema_arrow.equals(_FILE_SCHEMA):
            found = ", ".join(f"{field.name} {field.type}" for field in file.schema_arrow)
            raise BadInput(f"{path} is no bars file, its columns are {found}: {_REIMPORT}")
        return file

    def _unreadable(self, symbol: str, error: Exception) -> Exception:
        """What to raise for a file that Arrow could not read."""
        if isinstance(error, OSError) and error.errno is not None:
            return error  # the disk's fault, or the permissions'; Arrow's own have no number
        where = self._path(symbol)
        return BadInput(f"{where} is no readable Parquet file ({error}): {_REIMPORT}")

    def _read_table(self, symbol: str) -> pa.Table:
        try:
            table = self._open(symbol).read()
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(symbol, error) from error
        path = self._path(symbol)
        if any(column.null_count for column in table.columns):
            raise BadInput(f"{path} has empty values: {_REIMPORT}")
        return table


_REIMPORT = "remove it and import the symbol again with `retrain import FILE`"


def is_symbol(name: str) -> bool:
    """Say whether `name` is a usable symbol as it is spelled."""
    try:
        return checked_symbol(name) == name
    except BadInput:
        return False


def _copy(path: Path, to: Path) -> None:
    if not to.exists():
        with atomic_file(to) as partial:
            shutil.copyfile(path, partial)
