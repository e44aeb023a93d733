"""Which NLinear bases there are: the bundled one, and the user's own in `bases.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain_assets.models.bases import BaseTable, check_entry

LOOKBACK, STEPS = 128, 64
"""Bars that the network reads and forecasts."""


@dataclass(frozen=True)
class Base:
    """One usable base. model: its folder. max_context: longest window in bars."""

    model: str
    max_context: int


def _from_entry(entry: Mapping[str, Any], *, where: str) -> Base:
    check_entry(entry, where=where, sources=("model",), revisions=())
    return Base(**entry)


TABLE = BaseTable(
    family="nlinear",
    built_in={"nano": Base("nlinear-nano", max_context=LOOKBACK + STEPS)},
    from_entry=_from_entry,
    unsaid="its longest window",
    example=f"max_context: {LOOKBACK + STEPS}",
)


def find_base(name: str, *, checkpoints: Path) -> Base:
    """The base called `name`; errors as `BaseTable.find`."""
    return TABLE.find(name, checkpoints=checkpoints)
