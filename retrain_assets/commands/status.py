"""The command `retrain status`: where every stock of a month stands, and what is due next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrain_assets.commands import options as option
from retrain_assets.commands.answers import SUCCESS, Answer
from retrain_assets.commands.console import dagster_instance, opened, output, say
from retrain_assets.commands.stocks import asked_for

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from retrain_assets.defs.schedule import Due
    from retrain_assets.defs.states import RunState, StockState
    from retrain_assets.universe import Universe

_STYLES = {"failed": "bold red", "stale": "yellow", "missing": "yellow", "done": "green"}


def status(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    as_json: option.AsJson = False,
) -> Answer:
    """Show what is done, stale, missing, failed or under way in a month, what is live, what due.

    Examples:

    - `retrain status`

    - `retrain status --priority --month 2025-10`

    - `retrain status --json | jq '.stocks[] | select(.stages.comparison.state != "done")'`

    Without a choice of stocks all are shown, without a month the last complete one. *stale*: made
    of other bars, of another adapter, base or version than there is now; `retrain run` makes it
    anew. *behind*: sessions that have closed and are not stored. *live*: what production points
    to, and the month since which. Nothing is computed or changed; the exit code is 0 whatever is
    found.
    """
    import pandas as pd

    from retrain_assets.definitions import defs
    from retrain_assets.defs.code_versions import current_versions
    from retrain_assets.defs.states import pending_summaries, stock_states

    home, universe = opened()
    everyone = everything or not (stocks or priority)
    chosen, asked = asked_for(home, universe, stocks, priority, everyone, month)
    now = pd.Timestamp.now(tz="UTC")
    versions = current_versions(list(defs.assets or ()))
    with dagster_instance(home) as instance:
        states = stock_states(
            instance, home, universe, asked, chosen.symbols, now=now, versions=versions
        )
    summaries, due = pending_summaries(home, asked), _due(universe, chosen.symbols, now)
    console = output()
    console.print(_table(asked, states))
    for line in _notes(states, chosen.without_bars, summaries, due):
        say(console, line, indent=2)
    return Answer(SUCCESS, _content(asked, states, chosen.without_bars, summaries, due))


def _due(universe: Universe, symbols: Sequence[str], now: pd.Timestamp) -> dict[str, Due]:
    """By calendar of the active stocks what the schedule asks for next."""
    from retrain_assets.defs.schedule import Due

    stocks = [universe.stock(symbol, stored=symbols) for symbol in symbols]
    calendars = sorted({stock.calendar for stock in stocks if stock.active})
    return {name: Due.by(name, now, universe.operation.schedule) for name in calendars}


def _columns() -> dict[str, list[str]]:
    """The table's columns of stages: the assets behind each."""
    from retrain_assets.defs.staleness import CHAMPION, COMPARISON
    from retrain_assets.defs.states import BEGUN
    from retrain_assets.evaluation.asset_names import adapter_name, params_name
    from retrain_assets.models.forecaster import families

    return {
        "trained": [*BEGUN, *map(adapter_name, families())],
        "searched": [params_name(name) for name in families()],
        "compared": [COMPARISON],
        "decided": [CHAMPION],
    }


def _table(month: str, states: Sequence[StockState]) -> Table:
    from rich.table import Table

    table = Table(title=f"Status of {month}", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    columns = _columns()
    for heading in ("stock", "bars to", "behind", "month", *columns, "live", "now"):
        right = heading == "behind"
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for stock in states:
        cells = [
            stock.symbol,
            "-" if stock.last is None else f"{stock.last:%Y-%m-%d}",
            "-" if stock.behind is None else str(stock.behind),
            stock.month_is or "-",
        ]
        for assets in columns.values():
            state = stock.worst(assets)
            cells.append(f"[{_STYLES[state]}]{state}[/]" if state else "-")
        live = "-"
        if stock.live is not None:
            live = " ".join(filter(None, (stock.live.what, stock.live.since)))
        table.add_row(*cells, live, stock.runs[0].state if stock.runs else "")
    return table


def _notes(
    states: Sequence[StockState],
    without_bars: Sequence[str],
    summaries: Mapping[str, bool],
    due: Mapping[str, Due],
) -> Iterator[str]:
    """What the table has no room for: reasons, runs, summaries, dates."""
    from retrain_assets.defs.requests import shortened
    from retrain_assets.defs.states import WORST_FIRST

    reasons: dict[str, list[str]] = {}
    for worst in WORST_FIRST[:-1]:
        for stock in states:
            for asset, stage in stock.stages.items():
                if stage.state == worst and stage.why:
                    reasons.setdefault(f"{asset} {worst}: {stage.why}", []).append(stock.symbol)
    for stock in states:
        if stock.note:
            reasons.setdefault(stock.note, []).append(stock.symbol)
    if without_bars:
        reasons["no bars"] = list(without_bars)
    yield from ("", *(f"{shortened(symbols)}: {why}" for why, symbols in reasons.items()))
    for stock in states:
        yield from (f"{stock.symbol}: {_run_in_words(run)}" for run in stock.runs)
    if waiting := [name for name, pending in summaries.items() if pending]:
        yield f"Pending, older than what they sum up: {', '.join(waiting)}"
    for calendar, following in due.items():
        yield (
            f"Next by {calendar}: {following.following.month}, due "
            f"{following.at:%Y-%m-%d %H:%M %Z}, while `retrain ui` runs"
        )


def _run_in_words(run: RunState) -> str:
    return f"{run.month} {run.state} since {run.since:%Y-%m-%d %H:%M} UTC, run {run.run_id[:8]}"


def _content(
    month: str,
    states: Sequence[StockState],
    without_bars: Sequence[str],
    summaries: Mapping[str, bool],
    due: Mapping[str, Due],
) -> dict[str, Any]:
    """The fields of `--json`."""
    return {
        "month": month,
        "without_bars": list(without_bars),
        "stocks": {stock.symbol: _stock(stock) for stock in states},
        "summaries": {name: "pending" if old else "done" for name, old in summaries.items()},
        "due": {
            calendar: {"month": found.following.month, "at": found.at.isoformat()}
            for calendar, found in due.items()
        },
    }


def _stock(stock: StockState) -> dict[str, Any]:
    live = stock.live
    return {
        "bars": stock.bars,
        "last": None if stock.last is None else f"{stock.last:%Y-%m-%d}",
        "behind": stock.behind,
        "month_is": stock.month_is,
        "stages": {n: {"state": s.state, "why": s.why} for n, s in stock.stages.items()},
        "live": None
        if live is None
        else {"in_production": live.what, "month": live.month, "since": live.since},
        "runs": [
            {
                "run_id": run.run_id,
                "month": run.month,
                "state": run.state,
                "since": run.since.isoformat(),
            }
            for run in stock.runs
        ],
        "note": stock.note,
    }
