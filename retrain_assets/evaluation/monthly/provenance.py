"""Tables of what the numbers rest on: parameters, bars, regressions, versions, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.monthly.facts import BySymbol, MonthFacts, Record
from retrain_assets.evaluation.monthly.table import (
    NONE,
    Cell,
    Column,
    Group,
    Table,
    numbers,
    told,
    tone_of,
)
from retrain_assets.evaluation.search_results import CHOSEN, DEFAULT, words

_SHORT = 12
"""Digits of a digest that are shown."""


def parameters(facts: MonthFacts) -> Table:
    """Settings that were chosen, and by how much the choice promised more than it kept."""
    columns = [Column("stock"), Column("model"), Column("chosen", wide=True)]
    columns += numbers("selection", "test", "default", "naive", "gain, %", "shrinkage", "SPA p")
    groups = _by_stock(facts.searches, _search)
    notes = (
        "Errors are MAE in % of the price: where the settings were chosen, then on the test for "
        "the chosen settings, the published ones and naive. The gain is over the published "
        "settings on the test; shrinkage is by how many points the selection promised more.",
    )
    return Table("parameters", "Inference parameters that were chosen", columns, groups, notes)


def _by_stock(
    records: Mapping[str, BySymbol], cells: Callable[[str, Record], list[Cell]]
) -> list[Group]:
    """A group a stock, in it a row for each family that has a record of it."""
    symbols = sorted({symbol for found in records.values() for symbol in found})
    return [
        Group(symbol, [cells(family, by[symbol]) for family, by in records.items() if symbol in by])
        for symbol in symbols
    ]


def _search(family: str, record: Record) -> list[Cell]:
    summary = record["summary"]
    test, selection = summary["test"], summary["selection"]
    gain = summary["expected_gain_pct"]
    return [
        Cell(family),
        Cell(words(record["chosen"])),
        Cell(told(selection[CHOSEN]["mae_pct"])),
        *(Cell(told(test[name]["mae_pct"])) for name in (CHOSEN, DEFAULT, NAIVE)),
        Cell(told(gain, "+.1f"), tone=tone_of(gain)),
        Cell(told(summary["shrinkage_pct"], "+.1f")),
        Cell(told(summary["spa_p_value"])),
    ]


def regressions(facts: MonthFacts) -> Table:
    """What errs more than what it would replace, than last month's, or than its own base."""
    columns = [Column("stock"), Column("model"), Column("against"), *numbers("before", "now")]
    columns += [Column("change, %", number=True), Column("p", number=True)]
    columns += [Column("finding"), Column("what may explain it", wide=True)]
    rows: dict[str, list[list[Cell]]] = {}
    for row in facts.found("regressions"):
        rows.setdefault(row["symbol"], []).append(_regression(row))
    notes = (
        "Errors on the same selection forecasts, in % of the close. p is one-sided, adjusted for "
        "the number of stocks (Holm). Reasons are places to look first, none is proven.",
    )
    groups = [Group(symbol, found) for symbol, found in rows.items()]
    return Table("regressions", "What errs more than before", columns, groups, notes)


def _regression(row: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(row["best_model"]),
        Cell(" = ".join([row["against"], *row["same_as"]]).replace("_", " ")),
        Cell(told(row["baseline_mae_pct"])),
        Cell(told(row["optimized_mae_pct"])),
        Cell(told(row["regression_relative_pct"], "+.1f"), tone="bad"),
        Cell(told(row["p_holm"], ".2g")),
        Cell("worse", tone="bad") if row["status"] == "worse" else Cell("may be chance"),
        Cell(lines=row["reasons"]),
    ]


def troubles(facts: MonthFacts) -> Table:
    """What failed, is missing, stale or gone."""
    columns = [Column("stock"), Column("what"), Column("state"), Column("why", wide=True)]
    rows: dict[str, list[list[Cell]]] = {}
    kinds = (("failures", "failed", "error"), ("stale", "stale", "why"))
    for kind, state, key in kinds:
        for row in facts.found(kind):
            first, *rest = str(row[key]).splitlines() or [""]
            cells = [Cell(row["asset"]), Cell(state, tone="bad"), Cell(first, lines=rest)]
            rows.setdefault(row["symbol"], []).append(cells)
    for row in facts.found("missing"):
        cells = [Cell(lines=row["assets"]), Cell("missing", tone="bad"), Cell("was not made")]
        rows.setdefault(row["symbol"], []).append(cells)
    for row in facts.found("vanished"):
        rows.setdefault(row["symbol"], []).append([Cell("bars"), Cell("gone"), Cell(row["why"])])
    groups = [Group(symbol, rows[symbol]) for symbol in sorted(rows)]
    return Table("troubles", "What failed, is missing, stale or gone", columns, groups)


def bars(facts: MonthFacts) -> Table:
    """What was seen of each stock's history, and what is odd about it."""
    columns = [Column("stock"), Column("bars", number=True), Column("first"), Column("last")]
    columns += [Column("month"), Column("to look at", wide=True), Column("source", wide=True)]
    groups = []
    for symbol, seen in sorted(facts.bars.items()):
        cells = [Cell(str(seen.bars)), Cell(seen.first), Cell(seen.last)]
        cells.append(Cell("not over" if seen.provisional else "final"))
        odd = Cell(lines=seen.odd, tone="bad") if seen.odd else Cell("nothing")
        groups.append(Group(symbol, [[*cells, odd, Cell(seen.source or NONE)]]))
    notes = (
        "Odd bars are valid and may be right: missing sessions, sessions without volume or "
        "movement, leaps that look like a split, large moves.",
    )
    return Table("bars", "Bars up to the month's end", columns, groups, notes)


def splits(facts: MonthFacts) -> Table:
    """By stock and family what was trained on which days, and from which base."""
    columns = [Column("stock"), Column("model"), Column("base"), Column("difficulty")]
    columns += [*numbers("context", "horizon", "seed")]
    columns += [Column(name) for name in ("train", "validation", "selection", "test")]
    groups = _by_stock(facts.adapters, _adapter)
    return Table("splits", "Bases, plans and the dates each part is from", columns, groups)


def _adapter(family: str, record: Record) -> list[Cell]:
    plan, dates = record["plan"], record["split_dates"]
    return [
        Cell(family),
        Cell(record["base"], record["fingerprint"][:_SHORT]),
        Cell(plan["difficulty"]),
        Cell(str(plan["context"])),
        Cell(str(plan["horizon"])),
        Cell(str(record["seed"])),
        *(_span(dates.get(name)) for name in ("train", "validation", "selection", "test")),
    ]


def _span(dates: Mapping[str, Any] | None) -> Cell:
    return Cell(NONE) if dates is None else Cell(dates["first"], f"to {dates['last']}")


def libraries(facts: MonthFacts) -> Table:
    """Versions that results were made with; more than one where stocks differ."""
    found: dict[str, dict[str, list[str]]] = {}
    made = [(record["symbol"], record["versions"]) for record in facts.records]
    made += [(s, r["versions"]) for by in facts.adapters.values() for s, r in by.items()]
    for symbol, versions in made:
        for name, version in versions.items():
            whose = found.setdefault(name, {}).setdefault(str(version), [])
            whose += [] if symbol in whose else [symbol]
    groups = [Group(name, list(_library(by))) for name, by in sorted(found.items())]
    return Table("libraries", "Versions", [Column("library"), *_LIBRARY], groups)


_LIBRARY = (Column("version"), Column("stocks", wide=True))


def _library(by_version: Mapping[str, Sequence[str]]) -> Iterator[list[Cell]]:
    for version, symbols in sorted(by_version.items()):
        alone = len(by_version) == 1
        yield [Cell(version), Cell("all" if alone else ", ".join(sorted(symbols)))]


def runs(facts: MonthFacts) -> Table:
    """Where the runs of each stock can be looked at."""
    columns = [Column("stock"), Column("pages", wide=True)]
    groups = [
        Group(symbol, [[Cell(links=list(found.items()))]])
        for symbol, found in sorted(facts.pages.items())
        if found
    ]
    notes = ("The pages are there while `retrain ui` and `retrain mlflow` serve them.",)
    return Table("runs", "Runs in Dagster and MLflow", columns, groups, notes)
