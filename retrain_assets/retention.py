"""Which files of a data folder have served: what nothing in production needs, and only that.

Months are counted back from the last one that a stock has, so a demo of old months is left alone.
A file stays whenever a record that is still needed mentions it, and whenever it is not understood.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retrain_assets.evaluation.asset_names import adapter_name, params_name, refined_name
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.files import PARTIAL, is_month
from retrain_assets.home import Home
from retrain_assets.market.bars import is_symbol
from retrain_assets.market.calendar import month_before
from retrain_assets.market.inbox import IMPORTED
from retrain_assets.models.forecaster import families
from retrain_assets.operation import Retention
from retrain_assets.training.adapter_store import LADDER_FILE, LATEST_FILE

TRASH = ".trash"
"""Folder below each of the data folder's own, where what is deleted goes first."""

_ADAPTER = re.compile(r"[0-9a-f]{16}")
# An adapter's folder as records write it: family/month/symbol/id.
_MENTION = re.compile(r"[a-z0-9_]+/\d{4}-\d{2}/[A-Z0-9.\-]+/[0-9a-f]{16}")
_BESIDE = (LATEST_FILE, LADDER_FILE)
_TRAINING = ".training"
_COMPARISONS = "comparison_results"
_DAY = dt.timedelta(days=1)
_MONTH_DAYS = 31


@dataclass(frozen=True)
class Removal:
    """Something that would go.

    kind: in a word. path: of a file or folder. reason: why, for people. size: in bytes.
    """

    kind: str
    path: Path
    reason: str
    size: int


@dataclass
class Needed:
    """What stays of one stock.

    since: its first month that stays whole. live: the month of what is in production, None if
    nothing is. adapters: folders that records mention, relative to the model store. versions: ids
    of what is in production.
    """

    since: str
    live: str | None = None
    adapters: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)

    def whole(self, month: str) -> bool:
        """Whether everything of a month stays."""
        return month >= self.since or month == self.live

    def of(self, family: str, month: str, symbol: str) -> set[str]:
        """Those of the mentioned adapters that lie in one partition."""
        return {name for name in self.adapters if name.startswith(f"{family}/{month}/{symbol}/")}


def stocks(home: Home) -> list[str]:
    """Every stock that has an adapter or a decision."""
    found = {folder.name for name in families() for folder in (home.models / name).glob("*/*")}
    found |= set(ProductionStore(home.production).symbols())
    return sorted(name for name in found if is_symbol(name))


def needed(home: Home, symbol: str, retention: Retention) -> Needed:
    """What stays of a stock; raises BadInput for a record that cannot be read.

    Of every decision champions, incumbents and what it pointed to stay, since they can be put
    back; of an old one the candidates do not.
    """
    production = ProductionStore(home.production)
    live, decisions = production.live(symbol), production.decisions(symbol)
    months = {folder.parent.name for folder in _partitions(home, symbol)}
    months |= {record["month"] for record in [*decisions, *([live] if live else [])]}
    if not months:
        return Needed("")
    found = Needed(month_before(max(months), retention.months - 1))
    if live:
        found.live = live["month"]
        found.adapters |= _mentions(json.dumps(live))
        found.versions |= _versions(live)
    for record in decisions:
        old = record["month"] < found.since
        found.adapters |= _mentions(json.dumps(_without_candidates(record) if old else record))
    for file in _records(home, symbol):
        if found.whole(_month_of(file)):
            found.adapters |= _mentions(file.read_text(encoding="utf-8"))
    return found


def of_stock(home: Home, symbol: str, keep: Needed, now: dt.datetime) -> Iterator[Removal]:
    """What would go of one stock: adapters, searches, ladders, and results of its old months."""
    for partition in _partitions(home, symbol):
        name, month = partition.parents[1].name, partition.parent.name
        own = keep.of(name, month, symbol)
        if not keep.whole(month) and not own:
            reason = f"before {keep.since}, and nothing in production needs it"
            for record in _own_records(home, name, month, symbol):
                yield from _removal("record", record, reason)
            yield from _removal("model", partition, reason)
        else:
            yield from _superseded(home, partition, own, now)
    kept = {name.split("/")[1] for name in keep.adapters}
    for file in _results(home, symbol):
        month = _month_of(file)
        if keep.whole(month) or (file.parents[1].name == _COMPARISONS and month in kept):
            continue
        if file.parents[1].name == "live" and _scores(file, keep.versions):
            continue
        yield from _removal("result", file, f"before {keep.since}")


def of_months(home: Home, keep: Iterable[Needed]) -> Iterator[Removal]:
    """Summaries, reports and walks of months that are old for every stock."""
    known = [one for one in keep if one.since]
    if not known:
        return
    first, live = min(one.since for one in known), {one.live for one in known}
    reason = f"before {first}, the first month that stays of any stock"
    for kind in ("validation_results", "regression"):
        for folder in sorted((home.results / kind).glob("*")):
            if _is_month(folder) and folder.name < first and folder.name not in live:
                yield from _removal("result", folder, reason)
    for file in sorted((home.results / _COMPARISONS).glob("*/comparison_summary_*.json")):
        month = file.parent.name
        if is_month(month) and month < first and month not in live:
            yield from _removal("result", file, reason)
    for file in sorted((home.results / "backtest").glob("*.json")):
        ends = file.stem.split("_")
        if len(ends) == 2 and all(map(is_month, ends)) and ends[1] < first:
            yield from _removal("backtest", file, reason)


def by_age(home: Home, retention: Retention, now: dt.datetime) -> Iterator[Removal]:
    """Replaced bars, imported files, and what killed processes left behind.

    Of each symbol the version of the bars that was replaced last stays.
    """
    months = dt.timedelta(days=retention.months * _MONTH_DAYS)
    latest: dict[str, Path] = {}
    replaced = [file for file in (home.market / ".history").glob("*.parquet") if file.is_file()]
    for file in sorted(replaced, key=lambda path: path.stat().st_mtime):
        latest[_replaced_symbol(file)] = file
    for file in sorted(replaced):
        if file not in latest.values() and _age(file, now) > months:
            yield from _removal("bars", file, f"replaced more than {retention.months} months ago")
    days = dt.timedelta(days=retention.run_days)
    for file in sorted((home.inbox / IMPORTED).glob("*")):
        if file.is_file() and not file.is_symlink() and _age(file, now) > days:
            yield from _removal("inbox", file, f"imported more than {retention.run_days} days ago")
    yield from _left_over(home, days, now)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def _superseded(home: Home, partition: Path, own: set[str], now: dt.datetime) -> Iterator[Removal]:
    """Adapters of a partition that nothing mentions, neither its own records nor others.

    Searches stay: whatever was tried counts when the month is decided on again.
    """
    name, month, symbol = partition.parents[1].name, partition.parent.name, partition.name
    known = set(own)
    for record in (partition / name for name in _BESIDE):
        if record.is_file():
            known |= _mentions(record.read_text(encoding="utf-8"))
    for record in _own_records(home, name, month, symbol):
        known |= _mentions(record.read_text(encoding="utf-8"))
    for folder in sorted(partition.glob("[0-9a-f]*")):
        mentioned = f"{name}/{month}/{symbol}/{folder.name}" in known
        if _ADAPTER.fullmatch(folder.name) and not mentioned and _age(folder, now) > _DAY:
            yield from _removal("model", folder, "another adapter has taken its place")


def _left_over(home: Home, days: dt.timedelta, now: dt.datetime) -> Iterator[Removal]:
    """Temporaries of processes that were killed; what is younger may still be written."""
    areas = [home.models, home.assets, home.results, home.production, home.export, home.market]
    for area in [*areas, home.inbox, home.checkpoints]:
        for path in sorted(area.rglob(".*")):
            if any(part.endswith(_TRAINING) for part in path.parent.parts):
                continue  # goes with the training
            if PARTIAL.fullmatch(path.name) and _age(path, now) > _DAY:
                yield from _removal("left over", path, "whoever wrote it was killed")
            elif path.name.endswith(_TRAINING) and _age(path, now) > days:
                yield from _removal("left over", path, "a training that was never finished")


def _partitions(home: Home, symbol: str) -> list[Path]:
    """Folders of a stock's months and families below the model store, ascending."""
    found = [folder for name in families() for folder in (home.models / name).glob(f"*/{symbol}")]
    return sorted(folder for folder in found if is_month(folder.parent.name))


def _records(home: Home, symbol: str) -> list[Path]:
    """Everything written about a stock's months that may mention an adapter."""
    beside = [p / name for p in _partitions(home, symbol) for name in _BESIDE]
    assets = home.assets.glob(f"*/*/{symbol}.json")
    compared = (home.results / _COMPARISONS).glob(f"*/{symbol}_comparison.json")
    return [file for file in [*beside, *assets, *compared] if file.is_file()]


def _own_records(home: Home, family: str, month: str, symbol: str) -> list[Path]:
    """What the assets of a family returned for a partition."""
    names = [naming(family) for naming in (adapter_name, params_name, refined_name)]
    files = [home.assets / name / month / f"{symbol}.json" for name in names]
    return [file for file in files if file.is_file()]


def _results(home: Home, symbol: str) -> list[Path]:
    """A stock's own files among the results."""
    found = [
        *(home.results / _COMPARISONS).glob(f"*/{symbol}_*"),
        *(home.results / "live").glob(f"*/{symbol}.json"),
    ]
    return sorted(file for file in found if file.is_file() and is_month(file.parent.name))


def _month_of(file: Path) -> str:
    """The month that a stock's file belongs to: the folder that is named like one."""
    return next(part for part in reversed(file.parts) if is_month(part))


def _mentions(text: str) -> set[str]:
    return set(_MENTION.findall(text))


def _without_candidates(record: dict[str, object]) -> dict[str, object]:
    states = record["families"]
    assert isinstance(states, dict)
    bare = {name: state | {"candidate": None} for name, state in states.items()}
    return record | {"families": bare}


def _versions(record: dict[str, object]) -> set[str]:
    """Ids of the champions of a record."""
    from retrain_assets.evaluation.versions import Version

    states = record["families"]
    assert isinstance(states, dict)
    return {Version.from_json(state["champion"]).id for state in states.values()}


def _scores(file: Path, versions: set[str]) -> bool:
    """Whether a live record is of something that is still in production, or cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("versions", {})
    except (ValueError, AttributeError):
        return True
    return bool(versions & set(found.values()))


def _replaced_symbol(file: Path) -> str:
    return file.stem.rpartition(".")[0]


def _is_month(folder: Path) -> bool:
    return folder.is_dir() and is_month(folder.name)


def _age(path: Path, now: dt.datetime) -> dt.timedelta:
    """Time since a file was changed, or anything directly in a folder."""
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
    latest = max(one.lstat().st_mtime for one in (path, *inside))
    return now - dt.datetime.fromtimestamp(latest, dt.UTC)


def _removal(kind: str, path: Path, reason: str) -> list[Removal]:
    """None of a link, which nothing here makes: whoever made it knows why."""
    return [] if path.is_symlink() else [Removal(kind, path, reason, size_of(path))]
