"""One stock's comparison in words and plain tables of at most 100 columns: its text file."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from retrain_assets.evaluation.search_results import words
from retrain_assets.evaluation.significance import ALPHA
from retrain_assets.evaluation.stock_record import (
    Scope,
    Segment,
    StockRecord,
    duration,
    number,
    scored,
)

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100


class _Column(NamedTuple):
    """A score in the tables of errors: heading, name in `metrics.SCORES`, and how it is shown.

    factor: on the score. form: None for a price.
    """

    heading: str
    score: str
    factor: float = 1.0
    form: str | None = ".2f"


_COLUMNS = (
    _Column("MAE", "mae", form=None),
    _Column("MAE %", "mae_pct"),
    _Column("return\nMAE %", "return_mae", 100),
    _Column("RMSE", "rmse", form=None),
    _Column("MASE", "mase"),
    _Column("CRPS", "crps", form=None),
    _Column("80 %", "coverage_80"),
    _Column("skill %", "skill", 100, "+.1f"),
)
_READING = """\
MAE, RMSE and CRPS are in price units, MAE % is 100 x MAE / mean actual close, return MAE % is
relative to the close that was forecast from. MASE is MAE over the mean one-session move before
the selection: 1 is the error of naive one session ahead. CRPS judges the whole distribution.
80 % is the share of closes between the 10 % and 90 % quantiles: .80 is right. Skill is 1 - errors
/ errors of naive, in %: above 0 is better than naive; from 8 origins on that share no session,
its 95 % interval stands beside it. Errors of chosen and refined settings on the selection are too
low, for they were chosen there: look at the test. A month's test has few origins and proves
nothing by itself; the month's summary pools stocks and months."""


def stock_text(record: StockRecord) -> str:
    """The report on one stock, as read in a terminal of 100 columns or a text file.

    What was compared, errors of all candidates on the test at both horizons and on the selection,
    the verdict with its p-values, what each family would put into production, what was left out,
    and how to read it.
    """
    parts = [
        "\n".join(_header(record)),
        *(_scores(record, *kind) for kind in _kinds(record)),
        "\n".join(_verdict(record)),
        _judged(record),
        "\n".join(_versions(record)),
        *(["\n".join(_wrapped(note) for note in record["notes"])] if record["notes"] else []),
        _READING,
    ]
    return "\n\n".join(parts) + "\n"


def _header(record: StockRecord) -> Iterator[str]:
    state = ", provisional: the month is not over" if record["provisional"] else ""
    title = f"{record['symbol']} {record['month']}: which forecast is best"
    yield title
    yield "=" * len(title)
    yield (
        f"{record['bars']} bars up to {record['cut']}{state}; difficulty {record['difficulty']}; "
        f"seed {record['seed']}"
    )
    for segment, table in record["losses"].items():
        cutoffs = table["cutoff"]
        yield (
            f"{segment}: {len(cutoffs)} forecasts of {record['holdout_days']} sessions, made from "
            f"{cutoffs[0]} to {cutoffs[-1]}"
        )


def _kinds(record: StockRecord) -> tuple[tuple[Segment, Scope, str], ...]:
    """What is shown, in order, with a title."""
    days, plan = record["holdout_days"], record["plan_horizon"]
    return (
        ("test", "holdout", f"Test, {days} sessions ahead"),
        ("test", "plan", f"Test, {plan} sessions ahead (origins overlap: shown, never tested)"),
        ("selection", "holdout", f"Selection, {days} sessions ahead (where settings are chosen)"),
    )


def _scores(record: StockRecord, segment: Segment, scope: Scope, title: str) -> str:
    """Every candidate's scores of one kind."""
    rows = scored(record, segment, scope)
    interval = any(row["skill_low"] is not None for row in rows.values())
    headings = [column.heading for column in _COLUMNS]
    table = _table(*headings, *(["95 % interval"] if interval else []))
    price = _price_form(max(row["mae"] for row in rows.values()))
    for name, row in rows.items():
        cells = [number(row[c.score], c.factor, c.form or price) for c in _COLUMNS]
        table.add_row(name, *cells, *([_interval(row)] if interval else []))
    origins = next(iter(rows.values()))["origins"]
    return f"{title}: {origins} origins\n{_printed(table)}"


def _judged(record: StockRecord) -> str:
    """What does not depend on the kind of forecast: p and latency of every candidate."""
    table = _table("p", "median", "95 %")
    for name, seconds in record["latency_s"].items():
        p_value = record["p_values"].get(name)
        slow = record["latency_p95_s"].get(name)
        table.add_row(name, number(p_value, form=".3f"), duration(seconds), duration(slow))
    days = record["holdout_days"]
    title = f'p of "as good as naive", and latency of one forecast of {days} sessions'
    return f"{title}\n{_printed(table)}"


def _verdict(record: StockRecord) -> Iterator[str]:
    yield _wrapped(f"Winner: {record['winner']}: {record['reason']}.")
    yield _wrapped(
        f"p-values are of the selection, adjusted for the number of candidates (Holm); to be "
        f"better, one needs less than {ALPHA}. That of settings chosen there allows for all that "
        "were tried. Last month's is not judged, for its settings were chosen on much the same "
        "sessions."
    )


def _versions(record: StockRecord) -> Iterator[str]:
    yield "What would be put into production, if it were better than what is there"
    for family, entry in record["candidates"].items():
        version = entry["version"]
        adapter = version["adapter"]
        trained = "no adapter" if adapter is None else f"adapter {adapter['digest'][:12]}"
        count = len(record["tried"].get(family, []))
        yield _wrapped(
            f"{entry['name']}: base {version['base']}, {trained}, context {version['context']}, "
            f"{words(version['settings'])} (searches on these origins: {count})"
        )


def _table(*headings: str) -> Table:
    """A table of candidates and numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _printed(table: Table) -> str:
    """A table as lines without colours or trailing blanks."""
    from rich.console import Console

    console = Console(width=WIDTH, file=io.StringIO(), color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _interval(row: Mapping[str, Any]) -> str:
    if row["skill_low"] is None:
        return "-"
    return f"{100 * row['skill_low']:+.1f} to {100 * row['skill_high']:+.1f}"


def _price_form(largest: float) -> str:
    """Format of prices in a column: as many decimals as give the largest four digits."""
    digits = 3 - math.floor(math.log10(largest)) if largest > 0 else 2
    return f".{max(0, digits)}f"
