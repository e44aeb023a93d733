"""The command `retrain fetch`: missing bars from the feed, checked and taken in at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrain_assets.commands import completing
from retrain_assets.commands.console import opened, output, wrapped
from retrain_assets.fetching import configured, due_stocks

if TYPE_CHECKING:
    from retrain_assets.home import Home
    from retrain_assets.universe import Universe


def fetch(
    stocks: Annotated[
        list[str] | None,
        typer.Option(
            "--stocks",
            metavar="SYMBOL...",
            help="These stocks, active or not, instead of all active ones.",
            autocompletion=completing.symbols,
        ),
    ] = None,
) -> None:
    """Fetch missing bars from the feed that universe.yaml names, and take them in at once.

    Examples:

    - `retrain fetch`

    - `retrain fetch --stocks AAPL BTCUSD`

    Of a stock that has no bars yet, some ten years are fetched. What comes is checked like a file
    that is dropped into the inbox; other files that lie there are left to the sensor `new_bars`.
    The exit code is 1 if anything failed or was refused.
    """
    import pandas as pd

    from retrain_assets.market.bars import BarStore
    from retrain_assets.market.feeds import feed
    from retrain_assets.market.fetching import fetch_all

    home, universe = opened()
    source, store = feed(configured(universe).source), BarStore(home.market)
    wanted, failed = due_stocks(home, universe, stocks or (), now=pd.Timestamp.now("UTC"))
    console = output()

    def show(text: str) -> None:
        for line in wrapped(text, indent=2):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    for symbol, reason in failed.items():
        show(f"{symbol}: {reason}")
    outcome = fetch_all(wanted, source, store, home.inbox, told=show)
    dropped = [each.file for each in outcome.fetched.values() if each.file is not None]
    all_taken = _take(home, universe, dropped, show)
    if not wanted and not failed:
        show("nothing to fetch: the last closed session of every stock is stored")
    if failed or outcome.failed or not all_taken:
        raise typer.Exit(1)


def _take(
    home: Home, universe: Universe, files: Sequence[Path], show: Callable[[str], None]
) -> bool:
    """Take in files that lie whole in the inbox, and show what came of it; False if refused."""
    from retrain_assets.market.bars import BarStore
    from retrain_assets.market.inbox import Intake, holding

    intake = Intake(
        home.inbox,
        BarStore(home.market),
        universe.calendar_of,
        universe.aliases,
        universe.operation.inbox.largest_mb,
    )
    accepted = True
    with holding(home.inbox):
        # What the sensor was quicker to take in is no longer there.
        for file in filter(Path.exists, files):
            reports, refused = intake.take(file, now=time.time())
            for told in (*reports, *([refused] if refused else [])):
                show(str(told))
            accepted = accepted and refused is None
    return accepted
