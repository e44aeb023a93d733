"""Where every stock stands in a month: what is done, stale, missing, failed, under way, and live.

Read from the bars, the records on disk and a few queries of Dagster's run history, whatever the
number of stocks; nothing is loaded that computes, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import pandas as pd

from retrain_assets.defs.code_versions import other_code
from retrain_assets.defs.failures import RUN, failures_of
from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.partitions import month_and_symbol, partition_key
from retrain_assets.defs.requests import MONTH_TAG, PARTITION_TAG, UNFINISHED
from retrain_assets.defs.staleness import (
    CHAMPION,
    COMPARISON,
    OTHER_BARS,
    expected,
    outdated,
    stale,
)
from retrain_assets.errors import RetrainError
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.files import read_json
from retrain_assets.market.bars import BarStore
from retrain_assets.market.calendar import last_closed, month_cut, sessions
from retrain_assets.models.forecaster import families

if TYPE_CHECKING:
    from retrain_assets.home import Home
    from retrain_assets.universe import Stock, Universe

State = Literal["failed", "stale", "missing", "done"]
WORST_FIRST: tuple[State, ...] = ("failed", "stale", "missing", "done")
BEGUN = ("market_bars", "baseline_metrics")
_RUNS = 5000  # failed ones of a month that are looked at
_last_closed = lru_cache(maxsize=64)(last_closed)  # asked for every stock
_MODELS = tuple(name(f) for f in families() for name in (adapter_name, params_name))
# A month's summaries, and the assets they are made of.
_SUMMARIES = {
    "comparison_summary": (COMPARISON,),
    "params_summary": _MODELS,
    "regression_report": (COMPARISON, CHAMPION),
    "guide_files": (CHAMPION,),
    "month_report": (*_MODELS, COMPARISON, CHAMPION),
}


@dataclass(frozen=True)
class Stage:
    """How one asset of a stock's month stands, and why if it is not done."""

    state: State
    why: str | None = None


@dataclass(frozen=True)
class RunState:
    """A run that waits or is under way. since: of the state, UTC."""

    run_id: str
    month: str
    state: Literal["queued", "running"]
    since: pd.Timestamp


@dataclass(frozen=True)
class Live:
    """What is in production. month: whose decision that is. since: month of its promotion."""

    what: str
    month: str
    since: str | None


@dataclass(frozen=True)
class StockState:
    """One stock.

    last, bars: of the stored history; None and 0 where it cannot be read. behind: closed sessions
    that are not stored yet. month_is: None where the month has no bars. stages: by asset. runs: of
    any month. note: what went wrong outside of any asset.
    """

    symbol: str
    last: pd.Timestamp | None
    bars: int
    behind: int | None
    month_is: Literal["final", "provisional"] | None
    stages: Mapping[str, Stage] = field(default_factory=dict)
    live: Live | None = None
    runs: Sequence[RunState] = ()
    note: str | None = None

    def worst(self, assets: Iterable[str]) -> State | None:
        """The worst state among assets, None if there are none of them."""
        states = [self.stages[name].state for name in assets if name in self.stages]
        return min(states, key=WORST_FIRST.index, default=None)


def stock_states(
    instance: dg.DagsterInstance,
    home: Home,
    universe: Universe,
    month: str,
    symbols: Sequence[str],
    *,
    now: pd.Timestamp,
    versions: Mapping[str, str] | None = None,
) -> list[StockState]:
    """How the stocks stand in a month, in their order.

    now: tz-aware; sessions that closed by then should be stored. versions: of the code by asset,
    see `code_versions`. Bars and records that cannot be read are told in the note of their stock.
    """
    under_way, failed = _under_way(instance), _failed_in(instance, month)
    code = other_code(instance, month, symbols, versions or {})
    states = []
    for symbol in symbols:
        known = _read(home, universe, month, symbol, now)
        stages, note = dict[str, Stage](), known.note
        if known.month_is is not None:
            names = [*BEGUN, *expected(known.found), COMPARISON, CHAMPION]
            key = partition_key(month, symbol)
            why = failures_of(instance, key, names) if symbol in failed else {}
            stages = _stages(names, known, why, code.get(symbol, {}))
            # A run that died names no asset; what is none of these is told by `retrain analyze`.
            note = "; ".join(filter(None, [note, why.get(RUN)])) or None
        states.append(
            StockState(
                symbol=symbol,
                last=known.last,
                bars=known.bars,
                behind=known.behind,
                month_is=known.month_is,
                stages=stages,
                live=known.live,
                runs=under_way.get(symbol, ()),
                note=note,
            )
        )
    return states


def pending_summaries(home: Home, month: str) -> dict[str, bool]:
    """By name whether a month's summary is missing or older than what it sums up.

    Those that would sum up nothing are left out.
    """
    found = {}
    for name, inputs in _SUMMARIES.items():
        made = [_time(file) for i in inputs for file in (home.assets / i / month).glob("*.json")]
        if made:
            found[name] = _time(home.assets / name / f"{month}.json") < max(made)
    return found


def _time(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0


@dataclass(frozen=True)
class _Known:
    """What the files say of one stock."""

    found: Mapping[str, Mapping[str, Any]]
    bases: Mapping[str, str]
    hash: str
    last: pd.Timestamp | None
    bars: int
    behind: int | None
    month_is: Literal["final", "provisional"] | None
    live: Live | None
    note: str | None


def _read(home: Home, universe: Universe, month: str, symbol: str, now: pd.Timestamp) -> _Known:
    stock, notes = universe.stock(symbol, stored=[symbol]), list[str]()
    found: dict[str, Mapping[str, Any]] = {}
    dates, behind, view, live = pd.DatetimeIndex([]), None, None, None
    try:
        stored = BarStore(home.market).read(symbol)
        dates = pd.DatetimeIndex(stored["session"])
        behind = _behind(stock, dates[-1], now) if len(dates) else None
        cut = month_cut(month, dates, stock.calendar, symbol=symbol, today=now.date())
        view = PartitionBars.at(cut, stored, symbol, stock.calendar)
        found = _records(home, month, symbol)
    except RetrainError as error:
        notes.append(str(error))
    try:
        live = _live(home, symbol)
    except RetrainError as error:
        notes.append(str(error))
    return _Known(
        found=found,
        bases=universe.bases,
        hash="" if view is None else view.hash,
        last=dates[-1] if len(dates) else None,
        bars=len(dates),
        behind=behind,
        month_is=None if view is None else "provisional" if view.provisional else "final",
        live=live,
        note="; ".join(notes) or None,
    )


def _records(home: Home, month: str, symbol: str) -> dict[str, Mapping[str, Any]]:
    family_assets = [name(f) for f in families() for name in (adapter_name, params_name)]
    files = {
        name: home.assets / name / month / f"{symbol}.json"
        for name in (*BEGUN, *family_assets, COMPARISON, CHAMPION)
    }
    return {name: read_json(file) for name, file in files.items() if file.exists()}


def _live(home: Home, symbol: str) -> Live | None:
    record = ProductionStore(home.production).live(symbol)
    if record is None:
        return None
    pointer = record["pointer"]
    return Live(pointer["to"], record["month"], pointer["since"] or None)


def _behind(stock: Stock, last: pd.Timestamp, now: pd.Timestamp) -> int:
    """Sessions after the last stored one that have closed."""
    newest = _last_closed(stock.calendar, now)
    if newest <= last:
        return 0
    return len(sessions(stock.calendar, last, newest)) - 1


def _stages(
    names: Sequence[str], known: _Known, failures: Mapping[str, str], code: Mapping[str, str]
) -> dict[str, Stage]:
    """By asset the first that holds: failed since it was made, never made, stale, done."""
    why = {**code, **outdated(known.found, known.bases), **stale(known.found, known.hash)}
    begun = known.found.get(BEGUN[0])
    if begun is not None and begun["hash"] != known.hash:
        why[BEGUN[0]] = OTHER_BARS
    return {name: _stage(name, known.found, failures, why) for name in names}


def _stage(
    name: str, found: Mapping[str, Any], failures: Mapping[str, str], stale: Mapping[str, str]
) -> Stage:
    if name in failures:
        return Stage("failed", failures[name])
    if name not in found:
        return Stage("missing")
    return Stage("stale", stale[name]) if name in stale else Stage("done")


def _under_way(instance: dg.DagsterInstance) -> dict[str, list[RunState]]:
    """Runs that wait or are under way by symbol, of any month, the newest first."""
    found: dict[str, list[RunState]] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        key = run.tags.get(PARTITION_TAG, "")
        if "|" not in key:
            continue  # a month's summary
        month, symbol = month_and_symbol(key)
        begun = record.start_time
        since = record.create_timestamp.timestamp() if begun is None else begun
        state: Literal["queued", "running"] = "queued" if begun is None else "running"
        moment = pd.Timestamp(since, unit="s", tz="UTC")
        found.setdefault(symbol, []).append(RunState(run.run_id, month, state, moment))
    return found


def _failed_in(instance: dg.DagsterInstance, month: str) -> set[str]:
    """Symbols of which a run of the month failed; whether that was mended is asked for these."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={MONTH_TAG: month})
    runs = instance.get_runs(filters, limit=_RUNS)
    return {month_and_symbol(run.tags[PARTITION_TAG])[1] for run in runs}
