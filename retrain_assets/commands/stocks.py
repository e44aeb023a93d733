"""What commands that run stocks have in common: whom they run, and what they show of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from retrain_assets.commands.answers import FAILED, INTERRUPTED, SUCCESS, Answer, stock_answers
from retrain_assets.commands.console import dagster_instance, output, say
from retrain_assets.errors import RetrainError

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from retrain_assets.commands.display import ProgressView
    from retrain_assets.home import Home
    from retrain_assets.runs import Outcome
    from retrain_assets.universe import Selection, Universe
    from retrain_assets.work import Search, Work


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


def captioned(month: str, seed: int, search: Search) -> str:
    """What the tables of a run say below: its month and seed, and what of its search departs."""
    return "; ".join(filter(None, (f"month {month}, seed {seed}", search.told())))


@dataclass(frozen=True)
class Runner:
    """Runs stocks and summaries of months over one data folder, with progress.

    jobs: stocks at a time. quiet: show no progress.
    """

    home: Home
    defs: dg.Definitions
    instance: dg.DagsterInstance
    console: Console
    device: str
    jobs: int
    quiet: bool

    def stocks(self, symbols: Sequence[str], month: str, work: Work) -> list[Outcome]:
        """Run the stocks of a month; returns what came of each, in their order.

        Ctrl-C ends the command with exit code 130.
        """
        from retrain_assets.commands.display import ProgressView

        console = Console(quiet=True) if self.quiet else self.console
        view, outcomes = ProgressView(console, symbols, work.assets()), list["Outcome"]()
        try:
            with view:
                for outcome in self._as_they_come(symbols, month, work, view):
                    view.finish(outcome)
                    outcomes.append(outcome)
        except KeyboardInterrupt:
            say(self.console, "Interrupted: the same command goes on where training stopped.")
            raise typer.Exit(INTERRUPTED) from None
        return sorted(outcomes, key=lambda outcome: symbols.index(outcome.symbol))

    def _as_they_come(
        self, symbols: Sequence[str], month: str, work: Work, view: ProgressView
    ) -> Iterator[Outcome]:
        from retrain_assets.runs import run_stocks
        from retrain_assets.workers import run_side_by_side

        if self.jobs == 1:
            return run_stocks(self.defs, self.instance, symbols, month, work)
        return run_side_by_side(
            self.home.root, symbols, month, work, device=self.device, jobs=self.jobs, listener=view
        )

    def summaries(self, month: str, outcomes: Sequence[Outcome], work: Work) -> list[Path]:
        """Write the summaries of a month after its stocks ran; returns their files.

        Raises BadInput with the reason when one fails.
        """
        from retrain_assets.runs import summarise

        return summarise(self.defs, self.instance, month, outcomes, work)


@contextlib.contextmanager
def runner(
    home: Home, *, console: Console, device: str, jobs: int, quiet: bool
) -> Iterator[Runner]:
    """What runs months, for as long as Dagster's instance is open; see `Runner`."""
    from retrain_assets.definitions import build_definitions

    # MLflow and its database migrations would otherwise talk into the progress display.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    with dagster_instance(home) as instance:
        defs = build_definitions(home, device=device)
        yield Runner(home, defs, instance, console, device, jobs, quiet)


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
) -> Answer:
    """Run the stocks with progress, write the month's summaries, print all that came of it.

    The exit code is 1 if a stock failed or a summary was not written.
    """
    from retrain_assets.commands.display import show_results

    work.check(home, device)
    console = output()
    if chosen.without_bars:
        say(console, f"No bars, left out: {', '.join(chosen.without_bars)}", style="yellow")
    say(console, f"{', '.join(chosen.symbols)}: {caption}")
    files, unwritten = list["Path"](), None
    with runner(home, console=console, device=device, jobs=jobs, quiet=quiet) as run:
        outcomes = run.stocks(chosen.symbols, month, work)
        try:
            if any(outcome.begun for outcome in outcomes):
                files = run.summaries(month, outcomes, work)
        except RetrainError as error:  # it hides nothing of what came of the stocks
            unwritten = str(error)
        show_results(console, outcomes, files, caption)
    if unwritten:
        say(console, f"error: {unwritten}", style="bold red")
    failed = unwritten or any(outcome.failures for outcome in outcomes)
    content = {
        "month": month,
        "without_bars": list(chosen.without_bars),
        "stocks": stock_answers(outcomes),
        "files": [str(file) for file in files],
        "error": unwritten,
    }
    return Answer(FAILED if failed else SUCCESS, content)
