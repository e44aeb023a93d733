"""What a command begins with: the data folder, its universe, Dagster's instance, a console."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING

from rich.console import Console

from retrain_assets.home import Home

if TYPE_CHECKING:
    import dagster as dg

    from retrain_assets.universe import Universe


WIDTH = 100
"""Columns that everything fits; words that are longer, such as paths, stay whole."""


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
    """Dagster's instance: stored symbols are partitions, the pool has a place for each card."""
    import dagster as dg

    from retrain_assets.defs.partitions import register_stocks
    from retrain_assets.market.bars import BarStore
    from retrain_assets.pools import fit_pools

    instance = dg.DagsterInstance.get()
    register_stocks(instance, BarStore(home.market).symbols())
    fit_pools(instance, home)
    return instance


def output() -> Console:
    """Standard output, 100 columns wide where no terminal says how wide it is.

    A terminal is written to through a descriptor of its own, because Dagster turns the usual one
    into a log file while a run is under way.
    """
    if sys.stdout.isatty():
        return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    return Console(width=WIDTH)


def say(console: Console, text: str, *, indent: int = 0, style: str | None = None) -> None:
    """Print text as it is, in lines of at most 100 columns; paths and other long words stay whole.

    indent: of all lines but the first, beside a line's own.
    """
    for line in wrapped(text, min(WIDTH, console.width), indent):
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def wrapped(text: str, width: int = WIDTH, indent: int = 0) -> list[str]:
    """Lines of at most `width` columns, the continuations of each indented by `indent` more."""
    lines = []
    for line in text.splitlines() or [""]:
        own = " " * (len(line) - len(line.lstrip()) + indent)
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=own,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        ) or [""]
    return lines
