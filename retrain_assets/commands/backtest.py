"""The command `retrain backtest`: months one after the other, each knowing only its own past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from retrain_assets.commands import completing
from retrain_assets.commands import options as option
from retrain_assets.commands.answers import FAILED, SUCCESS, Answer
from retrain_assets.commands.console import opened, output, say
from retrain_assets.commands.stocks import asked_for, runner
from retrain_assets.errors import BadInput
from retrain_assets.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from retrain_assets.evaluation.stock_record import StockRecord
    from retrain_assets.home import Home
    from retrain_assets.work import Retrain

From = Annotated[
    str,
    typer.Option(
        "--from", metavar="YYYY-MM", help="First month.", autocompletion=completing.months
    ),
]
To = Annotated[
    str,
    typer.Option("--to", metavar="YYYY-MM", help="Last month.", autocompletion=completing.months),
]
Stored = Annotated[
    bool, typer.Option("--stored", help="Run nothing: report on what is stored already.")
]


def backtest(
    first: From,
    last: To,
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    model_type: option.ModelType = "both",
    holdout_days: option.HoldoutDays = 7,
    prediction_length: option.PredictionLength = None,
    base: option.Base = None,
    context_length: option.ContextLength = None,
    max_steps: option.MaxSteps = None,
    epochs_scale: option.EpochsScale = 1.0,
    seed: option.Seed = 0,
    grid: option.Grid = None,
    stored: Stored = False,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Walk through months as they were known then, and say whether retraining would have paid.

    Examples:

    - `retrain backtest --from 2022-01 --to 2023-08 --stocks AAPL NVDA`

    - `retrain backtest --from 2022-01 --to 2023-08 --all --stored`

    Every month trains, searches, compares and decides on bars up to its last session, and what it
    decides is scored on the month after. Nothing that is live moves, though the months' results are
    replaced: walk in a data folder of its own (RETRAIN_HOME) to keep them. A month of a stock that
    was run with the same options and bars is not run again, so an interrupted walk goes on.
    """
    from retrain_assets.runs import checked_month, chosen_families
    from retrain_assets.work import Retrain, Search

    home, universe = opened()
    families = chosen_families(model_type)
    search = Search(grid=option.read_grid(grid or ()))
    work = Retrain(
        families=families,
        holdout_days=holdout_days,
        prediction_length=prediction_length,
        bases=option.read_bases(base, families),
        context_length=context_length,
        max_steps=max_steps,
        epochs_scale=epochs_scale,
        seed=seed,
        search=search,
        live=False,
    )
    chosen, _ = asked_for(home, universe, stocks, priority, everything, last)
    months = _months(first, last)
    checked_month(first, universe)
    failed = {} if stored else _walk(home, chosen.symbols, months, work, device, jobs, no_progress)
    how = "as stored" if stored else f"seed {seed}; {_told(work, model_type)}".rstrip("; ")
    caption = f"{first} to {last}, {how}"
    content = _show(home, chosen.symbols, months, failed, caption, seed)
    return Answer(FAILED if failed else SUCCESS, content)


def _months(first: str, last: str) -> list[str]:
    """The months from one to another, both included; raises BadInput for a range of none."""
    import pandas as pd

    try:
        months = [str(month) for month in pd.period_range(first, last, freq="M")]
    except ValueError as error:
        raise BadInput(f"--from {first} --to {last}: write months as YYYY-MM") from error
    if not months:
        raise BadInput(f"--from {first} lies after --to {last}: swap them")
    return months


def _walk(
    home: Home,
    symbols: Sequence[str],
    months: Sequence[str],
    work: Retrain,
    device: str,
    jobs: int,
    quiet: bool,
) -> dict[str, str]:
    """Run what is not there yet, month by month; returns why stock-months failed."""
    work.check(home, device)
    console, failed = output(), dict[str, str]()
    with runner(home, console=console, device=device, jobs=jobs, quiet=quiet) as run:
        for month in months:
            todo = [s for s in symbols if not _done(run.instance, home, month, s, work)]
            done = len(symbols) - len(todo)
            say(console, f"{month}: {', '.join(todo) or 'nothing'} to run, {done} done")
            if not todo:
                continue
            outcomes = run.stocks(todo, month, work)
            try:
                run.summaries(month, outcomes, work)
            except BadInput as error:  # the walk goes on: what it reports on is the stocks' own
                failed[month] = str(error)
            failed |= {f"{o.symbol} {month}": "; ".join(o.failures) for o in outcomes if o.failures}
    return failed


def _done(instance: dg.DagsterInstance, home: Home, month: str, symbol: str, work: Retrain) -> bool:
    """Whether the stock's last run of the month did this very work, and succeeded."""
    import dagster as dg

    from retrain_assets.defs.partitions import partition_key
    from retrain_assets.defs.requests import PARTITION_TAG, WORK_TAG
    from retrain_assets.runs import work_digest

    key = str(partition_key(month, symbol))
    filters = dg.RunsFilter(tags={PARTITION_TAG: key})
    runs = instance.get_runs(filters, limit=1)
    return bool(
        runs
        and runs[0].status == dg.DagsterRunStatus.SUCCESS
        and runs[0].tags.get(WORK_TAG) == work_digest(home, month, symbol, work)
    )


def _show(
    home: Home,
    symbols: Sequence[str],
    months: Sequence[str],
    failed: dict[str, str],
    caption: str,
    seed: int,
) -> dict[str, Any]:
    """Write and print the report; returns what `--json` prints of it."""
    from retrain_assets.evaluation.backtest import backtest_report, render_backtest

    folder = home.results / "comparison_results"
    compared = [*_records(folder, "{}_comparison.json", symbols, months)]
    decided = [*_records(home.assets / "champion", "{}.json", symbols, months)]
    report = backtest_report(cast("list[StockRecord]", compared), decided, seed=seed)
    file = home.results / "backtest" / f"{months[0]}_{months[-1]}.json"
    write_json(file, report | {"failed": failed, "caption": caption})
    console = output()
    console.print(render_backtest(report, caption=caption))
    for what, why in failed.items():
        say(console, f"failed: {what}: {why}", indent=2)
    console.print(f"Results: {file}", highlight=False, soft_wrap=True)
    return {"months": list(months), "report": report, "failed": failed, "files": [str(file)]}


def _records(
    folder: Path, name: str, symbols: Sequence[str], months: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The stored records of these months and stocks, as far as there are any."""
    for month in months:
        for symbol in symbols:
            file = folder / month / name.format(symbol)
            if file.exists():
                yield read_json(file)


def _told(work: Retrain, model_type: str) -> str:
    """What of the work departs from the policy, for a caption."""
    from retrain_assets.runs import ALL

    bases = sorted(set(work.bases.values()))
    same = len(bases) == 1 and len(work.bases) == len(work.families)
    parts = {
        "models": "" if model_type == ALL else model_type,
        "base": bases[0] if same else ", ".join(f"{f} {b}" for f, b in work.bases.items()),
        "max_steps": str(work.max_steps or ""),
        "context": str(work.context_length or ""),
        "prediction_length": str(work.prediction_length or ""),
        "epochs_scale": "" if work.epochs_scale == 1 else f"{work.epochs_scale:g}",
    }
    told = [f"{name} {value}" for name, value in parts.items() if value]
    return "; ".join([*told, *filter(None, [work.search.told() if work.search else ""])])
