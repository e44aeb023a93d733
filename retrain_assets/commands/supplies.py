"""Commands that supply what runs need: `retrain import` for bars, `retrain pretrain` for a base."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrain_assets.commands import options as option
from retrain_assets.commands.console import opened, output

if TYPE_CHECKING:
    from retrain_assets.training.trainer import Progress


def import_bars(
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
    from retrain_assets.market.importing import ImportFailure, ImportReport, import_files

    home, universe = opened()

    results = import_files(
        files,
        BarStore(home.market),
        calendar_of=universe.calendar_of,
        symbol=universe.stock(symbol, stored=[symbol.upper()]).symbol if symbol else None,
        aliases=universe.aliases,
        accept_jumps=accept_jumps,
        replace=replace,
    )
    console = output()
    for result in results:
        console.print(str(result), markup=False, highlight=False, soft_wrap=True)
        if isinstance(result, ImportReport) and result.symbol not in universe.symbols:
            console.print("  not in universe.yaml: taken as a US stock, calendar XNYS")
    if any(isinstance(result, ImportFailure) for result in results):
        raise typer.Exit(1)


def pretrain(
    model_type: Annotated[
        str, typer.Argument(metavar="FAMILY", help="A model family, such as kronos or toto.")
    ],
    size: Annotated[
        str, typer.Option(help="Which small base: nano, or nano-1 for Toto's first generation.")
    ] = "nano",
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

    Examples:

    - `retrain pretrain kronos --size nano --out /tmp/nano`

    - `retrain pretrain toto --size nano-1 --out /tmp/nano`

    Without `--stocks` it uses every stored symbol. The bundled nano bases were made like this
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
    console, folder = output(), out or home.checkpoints

    def show(part: str, progress: Progress) -> None:
        if progress.validation_loss is not None:
            console.print(
                f"{part}: epoch {progress.epoch} of {progress.epochs}, validation loss "
                f"{progress.validation_loss:.4f}, {progress.seconds:.0f} s",
                highlight=False,
            )

    chosen.pretrain(size, bars, until=pd.Timestamp(until), checkpoints=folder, report=show)
    console.print(f"{chosen.title} {size} is in {folder}", highlight=False, soft_wrap=True)
