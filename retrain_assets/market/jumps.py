"""Leaps in a price history that no market made: splits left unadjusted, another instrument's rows.

A split of 4:1 that a vendor did not adjust for looks like a fall of 75 % overnight. The open
of that session already lies at the new level, which tells it from a crash within the session.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

# Ratios of stock splits that occur; 1:k and k:1 both count.
SPLITS = (2, 3, 4, 5, 6, 7, 8, 10)
# On the day of a split the open lies near the ratio; the close has moved on from there (by
# 12 % at Tesla's of 2020-08-31).
OPEN_TOLERANCE = 0.08
CLOSE_TOLERANCE = 0.20
# No listed instrument moves tenfold in a session, but another instrument's prices do.
LEVEL_RATIO = 10.0
# Across a longer hole a price may well have doubled.
MAX_DAYS = 14
# Two leaps that undo each other to within this share enclose rows of another level.
_RETURN_TOLERANCE = 0.25


@dataclass(frozen=True)
class Jump:
    """A leap between two neighbouring bars.

    row: position of the later bar. ratio: its close over the close before. split: k where the
    ratio looks like a split of k:1 (or 1:k), None where it is a leap beyond any split.
    returns_on: the session of the leap back, if there is one.
    """

    row: int
    session: pd.Timestamp
    ratio: float
    split: int | None
    returns_on: pd.Timestamp | None = None

    def __str__(self) -> str:
        what = f"{self.session:%Y-%m-%d}: close is {_times(self.ratio)} the close before"
        if self.returns_on is not None:
            return f"{what} and returns on {self.returns_on:%Y-%m-%d}: rows of another instrument?"
        if self.split is None:
            return f"{what}: another instrument, or another unit?"
        kind = f"{self.split}:1" if self.ratio < 1 else f"1:{self.split}"
        return f"{what}: a {kind} split that the prices before it are not adjusted for?"


def _times(ratio: float) -> str:
    return f"{ratio:.3g} x" if ratio >= 1 else f"1/{1 / ratio:.3g} of"


def find_jumps(bars: pd.DataFrame) -> list[Jump]:
    """Return the leaps in `bars` (a valid bars frame), oldest first.

    A leap is a close at least `LEVEL_RATIO` times the close before (or its inverse), or an
    open and close that both lie near 1/k or k times the close before, k one of `SPLITS`.
    Neighbours more than `MAX_DAYS` days apart are not compared.
    """
    close = bars["close"].to_numpy()
    days = np.diff(bars["session"].to_numpy()) / np.timedelta64(1, "D")
    ratio, opening = close[1:] / close[:-1], bars["open"].to_numpy()[1:] / close[:-1]
    leaps = []
    # Nothing nearer to 1 than this can be a split, so that few rows are looked at singly.
    far = np.abs(np.log(ratio)) > np.log(SPLITS[0] * (1 - CLOSE_TOLERANCE))
    for before in np.flatnonzero(far & (days <= MAX_DAYS)):
        split = _split(float(ratio[before]), float(opening[before]))
        if split is not None or not 1 / LEVEL_RATIO < ratio[before] < LEVEL_RATIO:
            row = int(before) + 1
            leaps.append(Jump(row, bars["session"].iloc[row], float(ratio[before]), split))
    return _paired(leaps)


def _split(ratio: float, opening: float) -> int | None:
    for factor in SPLITS:
        near = factor if ratio > 1 else 1 / factor
        if abs(opening / near - 1) <= OPEN_TOLERANCE and abs(ratio / near - 1) <= CLOSE_TOLERANCE:
            return factor
    return None


def _paired(leaps: list[Jump]) -> list[Jump]:
    """Join each leap with the next one where that one undoes it."""
    found: list[Jump] = []
    for leap in leaps:
        opened = found[-1] if found else None
        undone = opened is not None and abs(opened.ratio * leap.ratio - 1) <= _RETURN_TOLERANCE
        if opened is not None and undone and opened.returns_on is None:
            found[-1] = replace(opened, returns_on=leap.session)
        else:
            found.append(leap)
    return found
