"""What commands that run stocks have in common: whom they run, and what they show of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from retrain_assets.opened import dagster_instance, output

if TYPE_CHECKING:
    from pathlib import Path

    from retrain_assets.home import Home
    from retrain_assets.runs import Outcome
    from retrain_assets.universe import Selection, Universe
    from retrain_assets.work import Work


def asked_for(
    home: Home,
    universe: Universe,
    stocks: Sequence[str] | None,
    priority: bool,
    everything: bool,
    month: str | None,
) -> tuple[Selection, str]:
    """The stocks and the month that the options name; by default the last complete month."""
    from retrain_assets.market.bars import BarStore
    from retrain_assets.runs import checked_month, last_complete_month
    from retrain_assets.universe import select

    store = BarStore(home.market)
    chosen = select(
        universe, store.symbols(), stocks=stocks or (), priority=priority, everything=everything
    )
    asked = month or last_complete_month(store, universe, chosen.symbols)
    return chosen, checked_month(asked, universe)


def run_and_show(
    home: Home,
    chosen: Selection,
    month: str,
    work: Work,
    *,
    caption: str,
    device: str,
    jobs: int,
    quiet: bool,
) -> None:
    """Run the stocks with progress, write the month's summary, print all; exit 1 on a failure."""
    from retrain_assets.display import show_results

    work.check(home, device)
    console = output()
    if chosen.without_bars:
        console.print(f"No bars, left out: {', '.join(chosen.without_bars)}", style="yellow")
    console.print(f"{', '.join(chosen.symbols)}: {caption}", highlight=False)
    outcomes = run_month(
        home, chosen.symbols, month, work, console=console, device=device, jobs=jobs, quiet=quiet
    )
    files: list[Path] = []
    try:
        files = summarise_month(home, month, outcomes, work)
    finally:  # a summary that fails hides nothing of what came of the stocks
        show_results(console, outcomes, files, caption)
    if any(outcome.failures for outcome in outcomes):
        raise typer.Exit(1)


def run_month(
    home: Home,
    symbols: Sequence[str],
    month: str,
    work: Work,
    *,
    console: Console,
    device: str,
    jobs: int,
    quiet: bool,
) -> list[Outcome]:
    """Run the stocks of a month with progress; returns what came of each, in their order.

    Ctrl-C ends the command with exit code 130.
    """
    from retrain_assets import runs
    from retrain_assets.definitions import build_definitions
    from retrain_assets.display import ProgressView
    from retrain_assets.workers import run_side_by_side

    # MLflow and its database migrations would otherwise talk into the progress display.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    outcomes: list[Outcome] = []
    view = ProgressView(Console(quiet=True) if quiet else console, symbols, work.assets())
    with dagster_instance(home) as instance:
        defs = build_definitions(home, device=device)
        try:
            with view:
                outcomes_as_they_come = (
                    runs.run_stocks(defs, instance, symbols, month, work)
                    if jobs == 1
                    else run_side_by_side(
                        home.root, symbols, month, work, device=device, jobs=jobs, listener=view
                    )
                )
                for outcome in outcomes_as_they_come:
                    view.finish(outcome)
                    outcomes.append(outcome)
        except KeyboardInterrupt:
            console.print("Interrupted: the same command goes on where training stopped.")
            raise typer.Exit(130) from None
    return sorted(outcomes, key=lambda outcome: symbols.index(outcome.symbol))


def summarise_month(home: Home, month: str, outcomes: Sequence[Outcome], work: Work) -> list[Path]:
    """Write the summaries of a month after its stocks ran; returns their files.

    Raises BadInput with the reason when one fails.
    """
    from retrain_assets import runs
    from retrain_assets.definitions import build_definitions

    with dagster_instance(home) as instance:
        return runs.summarise(build_definitions(home), instance, month, outcomes, work)
