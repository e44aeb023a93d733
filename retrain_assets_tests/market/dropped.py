"""Files in an inbox, and what a look at it says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrain_assets.market.bars import BarStore
from retrain_assets.market.inbox import Taken, take_in
from retrain_assets_tests.market.made import csv, walk

# Long after every bar in these tests has closed.
NOON = 1_767_268_800.0


def look(
    inbox: Path, store: BarStore, seen: Mapping[str, Sequence[int]] | None = None, **options: Any
) -> Taken:
    """One look at noon, at which everything is ready that has an old time of change."""
    given = {
        **{"calendar_of": lambda _: "XNYS", "aliases": {}, "quiet_seconds": 0.0},
        **{"largest_mb": 1, "seen": seen or {}, "now": NOON},
    }
    return take_in(inbox, store, **{**given, **options})


def aged(path: Path, moment: float = NOON - 3600) -> Path:
    """Set when a file was changed."""
    os.utime(path, (moment, moment))
    return path


def dropped(inbox: Path, name: str = "NVDA.csv", count: int = 40) -> Path:
    """Bars in the inbox that were written an hour ago."""
    return aged(csv(inbox / name, walk(count)))


def lies(inbox: Path) -> list[str]:
    """Everything below the inbox but its lock, by path."""
    found = (p for p in inbox.rglob("*") if p.name != ".lock" and (p.is_symlink() or p.is_file()))
    return sorted(str(path.relative_to(inbox)) for path in found)
