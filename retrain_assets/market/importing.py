"""Importing price files: read, repair or refuse, compare with what is stored, merge, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.market.bars import BarStore
from retrain_assets.market.calendar import sessions
from retrain_assets.market.jumps import find_jumps
from retrain_assets.market.price_files import RawBars, read_file
from retrain_assets.market.repairs import CleanBars, clean
from retrain_assets.market.schema import SHOWN, warnings

# Adjusted closes of one day differ by about 1 % between downloads a year apart.
MEDIAN_TOLERANCE = 0.02
# No single close may have been corrected by more than this without a word from the user.
WORST_TOLERANCE = 0.25
# So many sessions may lie between stored and new bars that share none.
_MAX_HOLE = 5


@dataclass(frozen=True)
class ImportReport:
    """What an import did for one symbol.

    bars, first, last, content_hash: of the history now stored. added, changed: sessions that
    are new, and sessions whose values differ from what was stored. repairs: what was mended
    or assumed. warnings: what a person should look at in the file's bars.
    """

    path: Path
    symbol: str
    bars: int
    first: pd.Timestamp
    last: pd.Timestamp
    added: int
    changed: int
    repairs: tuple[str, ...]
    warnings: tuple[str, ...]
    content_hash: str

    def __str__(self) -> str:
        head = (
            f"{self.symbol}: {self.bars} bars {self.first:%Y-%m-%d} to {self.last:%Y-%m-%d} "
            f"({self.added} new, {self.changed} changed) from {self.path.name}"
        )
        noted = [f"  {line}" for line in self.repairs]
        return "\n".join([head, *noted, *(f"  look at: {line}" for line in self.warnings)])


@dataclass(frozen=True)
class ImportFailure:
    """A file, or one symbol of it, that was refused; what is stored is as before.

    symbol is None where the file failed before its symbols were known.
    """

    path: Path
    symbol: str | None
    error: str

    def __str__(self) -> str:
        return f"{self.symbol or self.path.name}: refused\n  " + self.error.replace("\n", "\n  ")


def import_files(
    paths: Sequence[Path],
    store: BarStore,
    *,
    calendar_of: Callable[[str], str],
    symbol: str | None = None,
    aliases: Mapping[str, str] | None = None,
    accept_jumps: bool = False,
    replace: bool = False,
    now: pd.Timestamp | None = None,
) -> list[ImportReport | ImportFailure]:
    """Import price files into `store`, each symbol on its own, in the order given.

    A file's bars take the place of stored bars of the same sessions; other stored bars stay.
    For that, both must agree where they overlap.

    calendar_of: gives a symbol's calendar; it may raise BadInput for a symbol it does not know.
    symbol: what the files hold, needed where neither they nor their names say so.
    aliases: other names, in upper case, and the symbols they stand for.
    accept_jumps: take leaps that look like unadjusted splits, or like another instrument's
        prices, as real.
    replace: drop the stored history instead of merging (it stays under `.history`).
    now: decides which session is still running (tz-aware; default: the clock).

    A refused file or symbol never stops the others and leaves its stored bars untouched.
    """
    now = pd.Timestamp.now("UTC") if now is None else now
    results: list[ImportReport | ImportFailure] = []
    for path in map(Path, paths):
        try:
            found = read_file(path, symbol=symbol, aliases=aliases or {})
        except (RetrainError, OSError) as error:
            results.append(ImportFailure(path, symbol, _words(error)))
            continue
        for raw in found:
            try:
                calendar = calendar_of(raw.symbol)
                cleaned = clean(raw, calendar, now=now)
                results.append(_store(raw, cleaned, store, calendar, accept_jumps, replace))
            except (RetrainError, OSError) as error:
                results.append(ImportFailure(path, raw.symbol, _words(error)))
    return results


def _words(error: RetrainError | OSError) -> str:
    if isinstance(error, RetrainError):
        return str(error)
    return f"{error}: make room on the disk, or see to the permissions, and import again"


def _store(
    raw: RawBars,
    new: CleanBars,
    store: BarStore,
    calendar: str,
    accept_jumps: bool,
    replace: bool,
) -> ImportReport:
    """Merge the bars of one symbol into the store, under its lock from reading to writing."""
    with store.lock(raw.symbol):
        stored = store.read(raw.symbol) if store.has(raw.symbol) else new.bars.iloc[:0]
        kept = stored.iloc[:0] if replace else stored
        merged, joined = _merged(kept, new, raw, calendar)
        leaps = _check_jumps(merged, kept, new, raw, accept_jumps)
        written = store.write(raw.symbol, merged, source=raw.path.name, calendar=calendar)
    common = stored.merge(merged, on="session", suffixes=("_old", "_new"))
    differs = np.any([common[f"{n}_old"] != common[f"{n}_new"] for n in stored.columns[1:]], axis=0)
    return ImportReport(
        path=raw.path,
        symbol=raw.symbol,
        bars=len(merged),
        first=merged["session"].iloc[0],
        last=merged["session"].iloc[-1],
        added=len(merged) - len(common),
        changed=int(differs.sum()),
        repairs=(*new.repairs, *joined, *leaps),
        warnings=tuple(warnings(new.bars, calendar)),
        content_hash=written,
    )


def _merged(
    stored: pd.DataFrame, new: CleanBars, raw: RawBars, calendar: str
) -> tuple[pd.DataFrame, list[str]]:
    """The new bars, and the stored bars of other sessions; refuses histories that do not fit."""
    if stored.empty:
        return new.bars, []
    both = stored.merge(
        new.bars.assign(line=new.lines), on="session", suffixes=("_old", "_new"), sort=True
    )
    notes = []
    if both.empty:
        _check_hole(stored, new, raw, calendar)
    else:
        off = _check_overlap(both, new, raw)
        if off > 0:
            notes.append(
                f"closes differ from the stored ones by {100 * off:.2g} % in the median of the "
                f"common sessions ({len(both)}): the file's were taken"
            )
    others = stored[~stored["session"].isin(new.bars["session"])]
    merged = pd.concat([others, new.bars]).sort_values("session").reset_index(drop=True)
    return merged, notes


def _check_hole(stored: pd.DataFrame, new: CleanBars, raw: RawBars, calendar: str) -> None:
    """Bars that share no session must follow each other, or nothing tells they fit."""
    first, last = new.bars["session"].iloc[0], new.bars["session"].iloc[-1]
    begin, end = stored["session"].iloc[0], stored["session"].iloc[-1]
    low, high = (end, first) if first > end else (last, begin)
    between = sessions(calendar, low, high)
    missing = int(((between > low) & (between < high)).sum())
    if missing > _MAX_HOLE:
        raise BadInput(
            f"{raw.path}: the bars of {raw.symbol} run from {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
            f"the stored ones from {begin:%Y-%m-%d} to {end:%Y-%m-%d}; no session is in both to "
            f"tell whether they are adjusted alike, and {missing} sessions between them are "
            "missing. Import a file that overlaps the stored bars, or replace the whole history "
            "with --replace"
        )


def _check_overlap(both: pd.DataFrame, new: CleanBars, raw: RawBars) -> float:
    """Closes of the sessions in both must agree; returns by what share they differ (median)."""
    ratio = both["close_new"] / both["close_old"]
    off = (ratio - 1).abs()
    remedy = "If the file is right, replace the whole history with --replace"
    if off.median() > MEDIAN_TOLERANCE:
        level = ratio.median()
        alike = (ratio / level - 1).abs().median() <= MEDIAN_TOLERANCE
        why = (
            f"throughout about {level:.4g} x the stored ones: adjusted for other splits or "
            "dividends?"
            if alike
            else f"off by {100 * off.median():.1f} % in the median: another instrument?"
        )
        row = both.iloc[0]
        raise BadInput(
            f"{raw.path}: in {len(both)} stored sessions the closes of {raw.symbol} are {why} "
            f"(first {new.lines.name} {row['line']}, {row['session']:%Y-%m-%d}: close "
            f"{row['close_new']:.10g}, stored {row['close_old']:.10g}). {remedy}"
        )
    wrong = both[np.abs(np.log(ratio)) > np.log(1 + WORST_TOLERANCE)]
    if len(wrong):
        shown = [
            f"{new.lines.name} {row.line} ({row.session:%Y-%m-%d}): close {row.close_new:.10g}, "
            f"stored {row.close_old:.10g}"
            for row in wrong.head(SHOWN).itertuples()
        ]
        raise BadInput(
            f"{raw.path}: closes of {raw.symbol} far from the stored ones ({len(wrong)}): "
            f"{'; '.join(shown)}. Correct these rows. {remedy}"
        )
    return float(off.median())


def _check_jumps(
    merged: pd.DataFrame, stored: pd.DataFrame, new: CleanBars, raw: RawBars, accept: bool
) -> list[str]:
    """Refuse leaps that the file brings in, or say that they were accepted.

    Leaps between stored bars were accepted when those came in.
    """
    known = {leap.session for leap in find_jumps(stored)}
    leaps = [leap for leap in find_jumps(merged) if leap.session not in known]
    if accept:
        return [f"accepted: {leap}" for leap in leaps]
    if not leaps:
        return []
    place = dict(zip(new.bars["session"], new.lines, strict=True))
    shown = [f"  {_place(place, leap.session, new.lines)}{leap}" for leap in leaps[:SHOWN]]
    if len(leaps) > SHOWN:
        shown.append(f"  and {len(leaps) - SHOWN} more")
    raise BadInput(
        "\n".join(
            [
                f"{raw.path}: the close of {raw.symbol} leaps; fetch split-adjusted prices of this "
                "symbol, or import with --accept-jumps if the moves are real",
                *shown,
            ]
        )
    )


def _place(place: dict[pd.Timestamp, int], session: pd.Timestamp, lines: pd.Index) -> str:
    return f"{lines.name} {place[session]}, " if session in place else ""
