"""Fixtures of the market tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrain_assets.market.bars import BarStore
from retrain_assets_tests.market.vendors import alpaca, over_requests, vendor, yahoo

__all__ = ["alpaca", "over_requests", "vendor", "yahoo"]


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """An empty bar store."""
    return BarStore(tmp_path / "store")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder
