"""What a person sees at the command line while stocks run, and when they are done."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from retrain_assets.commands.console import say
from retrain_assets.defs.progress import LOGGER, Step
from retrain_assets.evaluation.terminal_tables import render_baselines, render_table
from retrain_assets.home import DAGSTER_PAGE, MLFLOW_PAGE
from retrain_assets.runs import Outcome


class ProgressView(logging.Handler):
    """Shows the steps of running stocks: bars on a terminal, plain lines elsewhere.

    Used as a context manager around the runs. console: where to. assets: names of the assets
    of one stock in their order, which is what a bar measures.
    """

    def __init__(self, console: Console, symbols: Sequence[str], assets: Sequence[str]) -> None:
        super().__init__()
        # Asked once: while a run is under way Dagster puts a log file in the terminal's place.
        self._live = console.is_terminal
        self._console, self._assets = console, list(assets)
        self._bars = Progress(
            TextColumn("{task.description:<6}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn(
                "{task.fields[now]}", table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            console=console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {
            symbol: self._bars.add_task(symbol, total=len(assets), start=False, now="waiting")
            for symbol in symbols
        }

    def __enter__(self) -> Self:
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
        LOGGER.addHandler(self)
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        LOGGER.removeHandler(self)
        self._bars.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one step."""
        step: Step = record.__dict__["step"]
        if not self._live:
            if not step.minor:
                self._line(step.symbol, f"{step.asset}: {step.message}")
        elif step.symbol in self._tasks:
            task = self._tasks[step.symbol]
            self._bars.start_task(task)
            before = self._assets.index(step.asset) if step.asset in self._assets else 0
            self._bars.update(
                task, completed=before + (step.done or 0.0), now=f"{step.asset}: {step.message}"
            )

    def finish(self, outcome: Outcome) -> None:
        """Say that a stock is done."""
        now = "done" if outcome.record is None else f"done, winner: {outcome.record['winner']}"
        now = "failed" if outcome.failures else now
        if self._live:
            task = self._tasks[outcome.symbol]
            self._bars.update(task, completed=len(self._assets), now=now)
            self._bars.stop_task(task)
        else:
            self._line(outcome.symbol, now)

    def _line(self, symbol: str, text: str) -> None:
        say(self._console, f"{symbol:<6} {text}", indent=7)


def show_results(
    console: Console, outcomes: Sequence[Outcome], files: Sequence[Path], caption: str
) -> None:
    """Print tables, longer looks, failures, files, and how to look further."""
    from retrain_assets.evaluation.confirmation import confirmed_in_words

    for table in _tables(outcomes, caption):
        console.print()
        console.print(table)
    for outcome in outcomes:
        if outcome.confirmation is not None:
            console.print()
            say(console, "\n".join(confirmed_in_words(outcome.confirmation)), indent=2)
    failed = [outcome for outcome in outcomes if outcome.failures]
    if failed:
        console.print(f"\n{len(failed)} of {len(outcomes)} stocks failed:", style="bold red")
    for outcome in failed:
        for reason in outcome.failures:
            say(console, f"  {outcome.symbol}: {reason}", indent=2)
    console.print()
    for file in files:
        console.print(f"Results: {file}", highlight=False, soft_wrap=True)
    console.print(f"Every run, asset and plot: retrain ui, then {DAGSTER_PAGE}", highlight=False)
    console.print(f"Every parameter and loss: retrain mlflow, then {MLFLOW_PAGE}", highlight=False)


def _tables(outcomes: Sequence[Outcome], caption: str) -> Iterator[Table]:
    """The comparison at both horizons, what the search chose, and what was decided, if anything."""
    from retrain_assets.evaluation.params import ParamsRecord
    from retrain_assets.evaluation.params_report import render_params
    from retrain_assets.evaluation.terminal_tables import render_decisions

    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    if records:
        yield render_table(records, caption=caption)
        yield render_table(records, caption=caption, scope="plan")
        yield render_baselines(records, caption=caption)
    searched = [
        ParamsRecord.from_json(record) for outcome in outcomes for record in outcome.params.values()
    ]
    if searched:
        yield render_params(searched, caption=caption)
    decided = [outcome.champion for outcome in outcomes if outcome.champion is not None]
    if decided:
        yield render_decisions(decided)
