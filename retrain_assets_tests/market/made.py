"""Bars and price files made for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from retrain_assets.market.bars import BarStore, content_hash
from retrain_assets.market.calendar import next_sessions
from retrain_assets.market.importing import ImportFailure, ImportReport, import_files

# Long after every bar in these tests has closed.
NOW = pd.Timestamp("2026-01-01", tz="UTC")

PRICES = ["open", "high", "low", "close"]


def walk(
    count: int = 40, *, after: str = "2023-06-30", level: float = 100.0, calendar: str = "XNYS"
) -> pd.DataFrame:
    """Bars of a calm random walk that start with the first session after a date."""
    random = np.random.default_rng(7)
    close = level * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    opened = close * np.exp(random.normal(0, 0.004, count))
    return pd.DataFrame(
        {
            "session": next_sessions(calendar, pd.Timestamp(after), count),
            "open": opened,
            "high": np.maximum(opened, close) * 1.003,
            "low": np.minimum(opened, close) * 0.997,
            "close": close,
            "volume": random.integers(1_000, 9_000, count).astype(float),
        }
    )


def csv(path: Path, bars: pd.DataFrame, **columns: object) -> Path:
    """Write bars as CSV; further columns by keyword."""
    bars.assign(**columns).to_csv(path, index=False)
    return path


def take(
    path: Path, store: BarStore, *, calendar: str = "XNYS", **options: object
) -> ImportReport | ImportFailure:
    """Import one file of one symbol."""
    options = {"now": NOW} | options
    (result,) = import_files([path], store, calendar_of=lambda _: calendar, **options)
    return result


def taken(path: Path, store: BarStore, **options: object) -> ImportReport:
    """Import one file that must be accepted."""
    result = take(path, store, **options)
    assert isinstance(result, ImportReport), result
    return result


def refused(path: Path, store: BarStore, **options: object) -> str:
    """Import one file that must be refused, with nothing written; returns the error."""
    before = {file: file.read_bytes() for file in store.root.rglob("*.parquet")}
    result = take(path, store, **options)
    assert isinstance(result, ImportFailure), result
    assert {file: file.read_bytes() for file in store.root.rglob("*.parquet")} == before
    assert str(path) in result.error
    return result.error


def same(store: BarStore, bars: pd.DataFrame, symbol: str = "NVDA") -> bool:
    """Whether exactly these bars are stored."""
    return content_hash(store.read(symbol)) == content_hash(bars)


def said(report: ImportReport) -> str:
    """What an import repaired or assumed, as one text."""
    return "\n".join(report.repairs)
