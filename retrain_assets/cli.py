"""The command line: `retrain import`, `run`, `demo`, `ui`, `mlflow`, `pretrain`, `env`."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from retrain_assets import options as option
from retrain_assets import pages
from retrain_assets.errors import RetrainError
from retrain_assets.opened import dagster_instance, opened

if TYPE_CHECKING:
    from retrain_assets.home import Home
    from retrain_assets.runs import Options
    from retrain_assets.training.trainer import Progress
    from retrain_assets.universe import Stock

EPILOG = (
    "The data folder is ./data, or the folder that RETRAIN_HOME names. RETRAIN_THREADS sets the "
    "CPU threads. `retrain COMMAND --help` has examples."
)
# The guide extends the table's epochs by half; without that, this share of them is left.
NOT_EXTENDED = 1 / 1.5
DEMO_SYMBOLS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
DEMO_MONTH = "2023-08"
DEMO_STEPS = 150
DEMO_CONTEXT = 256
DEMO_JOBS = 2

app = typer.Typer(
    name="retrain",
    help="Retrain per-stock forecasting adapters month by month, and compare them honestly.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.command()
def run(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    model_type: option.ModelType = "both",
    holdout_days: option.HoldoutDays = 7,
    prediction_length: option.PredictionLength = None,
    base: option.Base = None,
    context_length: option.ContextLength = None,
    max_steps: option.MaxSteps = None,
    epochs_scale: option.EpochsScale = 1.0,
    no_extended_epochs: option.NoExtended = False,
    seed: option.Seed = 0,
    warm_start: option.WarmStart = False,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
) -> None:
    """Train adapters, compare them with the base and with naive, and print the result.

    Examples:

    - `retrain run --stocks AAPL NVDA AMD`

    - `retrain run --priority --month 2023-08 --model-type kronos`

    - `retrain run --all --holdout-days 10 --prediction-length 128`

    One stock that fails does not stop the others; the exit code is then 1. An interrupted
    training goes on where it stopped when the same command is given again.
    """
    from retrain_assets.market.bars import BarStore
    from retrain_assets.runs import Options, checked_month, chosen_families, last_complete_month
    from retrain_assets.universe import select

    home, universe = opened()
    store = BarStore(home.market)
    chosen = select(
        universe, store.symbols(), stocks=stocks or (), priority=priority, everything=everything
    )
    options = Options(
        families=chosen_families(model_type),
        holdout_days=holdout_days,
        prediction_length=prediction_length,
        base=base,
        context_length=context_length,
        max_steps=max_steps,
        epochs_scale=epochs_scale * (NOT_EXTENDED if no_extended_epochs else 1.0),
        seed=seed,
        warm_start=warm_start,
    )
    asked = month or last_complete_month(store, universe, chosen.symbols)
    console = _console()
    if chosen.without_bars:
        console.print(f"No bars, left out: {', '.join(chosen.without_bars)}", style="yellow")
    _run_and_show(
        console,
        home,
        chosen.symbols,
        checked_month(asked, universe),
        options,
        caption=f"month {asked}, seed {seed}",
        device=device,
        jobs=jobs,
        quiet=no_progress,
    )


@app.command()
def demo(no_progress: option.NoProgress = False) -> None:
    """Run everything once on the six bundled stocks, on the CPU, in a few minutes.

    The same as `retrain run --stocks AAPL AMZN GOOG META NFLX NVDA --month 2023-08 --base nano
    --model-type kronos --context-length 256 --max-steps 150 --device cpu --jobs 2`: the policy
    itself would look back on 448 bars and take up to 3,500 steps. The nano base exists to run the
    system offline; its forecasts are not for trading.
    """
    from retrain_assets.runs import Options

    home, _ = opened()
    _run_and_show(
        _console(),
        home,
        DEMO_SYMBOLS,
        DEMO_MONTH,
        Options(
            families=("kronos",),
            base="nano",
            context_length=DEMO_CONTEXT,
            max_steps=DEMO_STEPS,
        ),
        caption=(
            f"demo preset: month {DEMO_MONTH}, base nano, max_steps {DEMO_STEPS}, "
            f"context {DEMO_CONTEXT}, CPU"
        ),
        device="cpu",
        jobs=DEMO_JOBS,
        quiet=no_progress,
    )


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="CSV or Parquet files of daily bars.")],
    symbol: Annotated[
        str | None, typer.Option(help="The symbol, where neither the file nor its name says it.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the stored history instead of merging.")
    ] = False,
    accept_jumps: Annotated[
        bool, typer.Option("--accept-jumps", help="Take leaps that look like splits as real.")
    ] = False,
) -> None:
    """Check price files and add their bars to the store.

    Examples:

    - `retrain import prices/*.csv`

    - `retrain import download.csv --symbol SPY`

    A symbol that universe.yaml does not list is taken as a US stock; list a coin there first.
    What can be mended is mended and told; anything else is refused with file, row, field and
    remedy, and the stored bars stay as they are. The exit code is 1 if anything was refused.
    """
    from retrain_assets.market.bars import BarStore
    from retrain_assets.market.sources import ImportFailure, ImportReport, import_files

    home, universe = opened()

    def listed(name: str) -> Stock:
        return universe.stock(name, stored=[name.upper()])

    results = import_files(
        files,
        BarStore(home.market),
        calendar_of=lambda name: listed(name).calendar,
        symbol=listed(symbol).symbol if symbol else None,
        aliases=universe.aliases,
        accept_jumps=accept_jumps,
        replace=replace,
    )
    console = _console()
    for result in results:
        console.print(str(result), markup=False, highlight=False, soft_wrap=True)
        if isinstance(result, ImportReport) and result.symbol not in universe.symbols:
            console.print("  not in universe.yaml: taken as a US stock, calendar XNYS")
    if any(isinstance(result, ImportFailure) for result in results):
        raise typer.Exit(1)


@app.command()
def pretrain(
    model_type: Annotated[str, typer.Argument(metavar="FAMILY", help="A model family: kronos.")],
    size: Annotated[str, typer.Option(help="Which small base: nano.")] = "nano",
    until: Annotated[
        dt.datetime, typer.Option(formats=["%Y-%m-%d"], help="Last session that may be used.")
    ] = dt.datetime(2020, 6, 30),
    stocks: option.Stocks = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the base; by default the checkpoints folder.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; the weights depend on their number.")
    ] = 1,
) -> None:
    """Train a small base model from nothing, so that the system runs offline.

    Example: `retrain pretrain kronos --size nano --out /tmp/nano`

    Without `--stocks` it uses every stored symbol. The bundled nano base was made like this
    from the six bundled ones; an existing base in the folder is replaced.
    """
    import pandas as pd
    import torch

    from retrain_assets.market.bars import BarStore
    from retrain_assets.models.forecaster import family

    chosen, (home, _) = family(model_type), opened()
    store = BarStore(home.market)
    bars = {symbol: store.read(symbol) for symbol in stocks or store.symbols()}
    torch.set_num_threads(threads)
    console, folder = Console(), out or home.checkpoints

    def show(part: str, progress: Progress) -> None:
        if progress.validation_loss is not None:
            console.print(
                f"{part}: epoch {progress.epoch} of {progress.epochs}, validation loss "
                f"{progress.validation_loss:.4f}, {progress.seconds:.0f} s",
                highlight=False,
            )

    chosen.pretrain(size, bars, until=pd.Timestamp(until), checkpoints=folder, report=show)
    console.print(f"{chosen.title} {size} is in {folder}", highlight=False, soft_wrap=True)


for page in (pages.ui, pages.mlflow, pages.env):
    app.command()(page)


def _console() -> Console:
    """Standard output; wide enough for the table where no terminal says how wide it is.

    A terminal is written to through a descriptor of its own, because Dagster turns the usual one
    into a log file while a run is under way.
    """
    if sys.stdout.isatty():
        return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    console = Console()
    return Console(width=max(console.width, 110))


def _run_and_show(
    console: Console,
    home: Home,
    symbols: Sequence[str],
    month: str,
    options: Options,
    *,
    caption: str,
    device: str,
    jobs: int,
    quiet: bool,
) -> None:
    """Run the stocks with progress, write the month's summary, print all; exit 1 on a failure."""
    from retrain_assets import runs
    from retrain_assets.definitions import build_definitions
    from retrain_assets.display import ProgressView, show_results
    from retrain_assets.workers import run_side_by_side

    options.check(home)
    # MLflow and its database migrations would otherwise talk into the progress display.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    console.print(f"{', '.join(symbols)}: {caption}", highlight=False)
    outcomes = []
    assets = runs.asset_order(options)
    view = ProgressView(Console(quiet=True) if quiet else console, symbols, assets)
    with dagster_instance(home) as instance:
        defs = build_definitions(home, device=device)
        try:
            with view:
                outcomes_as_they_come = (
                    runs.run_stocks(defs, instance, symbols, month, options)
                    if jobs == 1
                    else run_side_by_side(
                        home.root, symbols, month, options, device=device, jobs=jobs, listener=view
                    )
                )
                for outcome in outcomes_as_they_come:
                    view.finish(outcome)
                    outcomes.append(outcome)
        except KeyboardInterrupt:
            console.print("Interrupted: the same command goes on where training stopped.")
            raise typer.Exit(130) from None
        outcomes.sort(key=lambda outcome: symbols.index(outcome.symbol))
        failed = {outcome.symbol: outcome.error for outcome in outcomes if outcome.error}
        files = runs.summarise(defs, instance, month, failed)
    show_results(console, outcomes, files, caption)
    if failed:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors of the input end with their message and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(option.spread_lists(given))
    except RetrainError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
