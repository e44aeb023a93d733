"""What a command begins with: the data folder, its universe, Dagster's instance, a console."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from retrain_assets.home import Home

if TYPE_CHECKING:
    import dagster as dg

    from retrain_assets.universe import Universe


def opened() -> tuple[Home, Universe]:
    """The data folder, with Dagster's settings in place, and its universe.

    Raises BadInput when there is no data folder or its universe file cannot be used.
    """
    from retrain_assets.universe import Universe

    home = Home.find()
    universe = Universe.load(home.universe)
    home.prepare()
    return home, universe


def dagster_instance(home: Home) -> dg.DagsterInstance:
    """Dagster's instance, in which every stored symbol is a partition."""
    import dagster as dg

    from retrain_assets.defs.partitions import register_stocks
    from retrain_assets.market.bars import BarStore

    instance = dg.DagsterInstance.get()
    register_stocks(instance, BarStore(home.market).symbols())
    return instance


def output() -> Console:
    """Standard output; wide enough for the tables where no terminal says how wide it is.

    A terminal is written to through a descriptor of its own, because Dagster turns the usual one
    into a log file while a run is under way.
    """
    if sys.stdout.isatty():
        return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    return Console(width=max(Console().width, 110))
