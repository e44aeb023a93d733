"""Tables of errors and decisions: by stock, at both horizons, pooled, in production."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrain_assets.evaluation.comparison import NAIVE, VARIANTS
from retrain_assets.evaluation.monthly.facts import MonthFacts, Record
from retrain_assets.evaluation.monthly.table import (
    NONE,
    Cell,
    Column,
    Group,
    Table,
    numbers,
    percent,
    told,
    tone_of,
)
from retrain_assets.evaluation.pooling import skill
from retrain_assets.evaluation.stock_record import Scope, StockRecord, scored
from retrain_assets.evaluation.versions import POINTER

_TITLES = {"zero_shot": "zero-shot", "last_month": "last month's"}
_READING = (
    "Each cell: error (MAE in % of the price), below it the skill over naive in %: above 0 errs "
    "less than naive. Zero-shot is the base as published; adapter is trained on the stock; chosen "
    "is that adapter with the settings the search chose; in place is what the decision was about."
)


def errors_by_stock(facts: MonthFacts, scope: Scope) -> Table:
    """MAE % and skill of every variant on the test, one row a stock and family.

    scope: forecasts of H sessions, with what is in place, the winner and the answer; or of the
    plan's horizon.
    """
    plan = scope == "plan"
    variants = _variants(facts, scope)
    columns = [Column("stock"), *([Column("ahead", number=True)] if plan else [])]
    columns += [Column("naive", number=True), Column("model")]
    columns += numbers(*(_TITLES.get(name, name) for name in variants))
    if not plan:
        columns += [Column("in place", number=True), Column("winner"), Column("decision")]
    groups = [Group(r["symbol"], list(_rows(facts, r, scope, variants))) for r in facts.records]
    days = ", ".join(str(d) for d in sorted({r["holdout_days"] for r in facts.records}))
    if plan:
        caption = "Test errors at the plan's horizon"
        notes = ["The forecasts overlap, so this shows what happened and proves nothing."]
    else:
        caption = f"Test errors {days} sessions ahead"
        notes = [_READING, _origins(facts)]
    return Table(f"errors-{scope}", caption, columns, groups, notes)


def _origins(facts: MonthFacts) -> str:
    counts = sorted({scored(r, "test", "holdout")[NAIVE]["origins"] for r in facts.records})
    many = " to ".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]])) if counts else "0"
    return (
        f"A stock's month has {many} test forecasts, which proves nothing by itself. The winner is "
        "told from the selection's forecasts, with p adjusted for the number of candidates."
    )


def _variants(facts: MonthFacts, scope: Scope) -> list[str]:
    """Variants that any stock has, in their usual order."""
    there = {
        name.split(".")[1]
        for record in facts.records
        for name in scored(record, "test", scope)
        if "." in name
    }
    return [name for name in VARIANTS if name in there]


def _rows(
    facts: MonthFacts, record: StockRecord, scope: Scope, variants: Sequence[str]
) -> Iterator[list[Cell]]:
    scores = scored(record, "test", scope)
    families = [f for f in facts.families if any(name.startswith(f"{f}.") for name in scores)]
    for place, family in enumerate(families or [""]):
        first = place == 0
        cells = [Cell(str(record["plan_horizon"]) if first else "")] if scope == "plan" else []
        cells += [Cell(told(scores[NAIVE]["mae_pct"]) if first else ""), Cell(family)]
        cells += [_score(scores.get(f"{family}.{variant}")) for variant in variants]
        if scope != "plan":
            champion = facts.champions.get(record["symbol"])
            cells.append(_score(in_place(record, champion, family)))
            cells += [_winner(record, family, first), _answer(champion, family)]
        yield cells


def in_place(record: StockRecord, champion: Record | None, family: str) -> dict[str, Any] | None:
    """MAE % and skill of what a family's decision was about, on the test origins; None if unknown.

    The decision holds its mean errors by origin in price units, the comparison the price level.
    """
    losses = ((champion or {}).get("losses") or {}).get("test", {})
    own, naive = losses.get(f"{family}.incumbent"), losses.get(NAIVE)
    base = scored(record, "test", "holdout")[NAIVE]
    if not own or not naive or not base["mae"] or len(own) != base["origins"]:
        return None
    share = base["mae_pct"] / base["mae"]
    return {"mae_pct": share * sum(own) / len(own), "skill": skill(own, naive)}


def _score(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell(NONE)
    return Cell(told(row["mae_pct"]), percent(row["skill"]), tone_of(row["skill"]))


def _winner(record: StockRecord, family: str, first: bool) -> Cell:
    by, _, variant = record["winner"].partition(".")
    if variant:
        return Cell(_TITLES.get(variant, variant), tone="good") if by == family else Cell()
    return Cell(by.replace("_", " ") if first else "")


def _answer(champion: Record | None, family: str) -> Cell:
    state = ((champion or {}).get("families") or {}).get(family)
    if state is None:
        return Cell(NONE)
    return Cell("promoted", tone="good") if state["decision"]["promote"] else Cell("stays")


def decisions(facts: MonthFacts) -> Table:
    """The verdict on each stock, the answer of each family, and what production points to."""
    columns = [Column("stock"), Column("about"), Column("answer"), Column("why", wide=True)]
    symbols = sorted({*facts.comparisons, *facts.champions})
    groups = [Group(symbol, list(_decided(facts, symbol))) for symbol in symbols]
    notes = (
        "A candidate replaces what is in place only on evidence that counts everything that was "
        "tried; without it everything stays as it is, which is the normal case.",
    )
    return Table("decisions", "Verdicts and decisions", columns, groups, notes)


def _decided(facts: MonthFacts, symbol: str) -> Iterator[list[Cell]]:
    if (record := facts.comparisons.get(symbol)) is not None:
        yield [Cell("winner"), Cell(record["winner"]), Cell(record["reason"])]
    if (champion := facts.champions.get(symbol)) is None:
        return
    for family, state in champion["families"].items():
        yield [Cell(family), _answer(champion, family), Cell(state["decision"]["reason"])]
    pointer = champion["pointer"]
    aside = "" if champion["live"] else "for the record alone"
    yield [
        Cell("in production"),
        Cell(pointer["to"], aside, "good" if pointer["decision"]["promote"] else ""),
        Cell(pointer["decision"]["reason"]),
    ]


def pooled(facts: MonthFacts) -> Table:
    """Skill over naive of every candidate, pooled over stocks, and over all months so far."""
    columns = [Column("candidate"), *numbers("this month, %", "to date, %")]
    columns += [Column("95 % interval"), *numbers("p", "months", "stocks", "forecasts")]
    groups = [
        Group(name, [_pooled_row(one, facts.statistics["pooled_to_date"].get(name))])
        for name, one in facts.statistics.get("pooled", {}).items()
    ]
    notes = [note[0].upper() + note[1:] + "." for note in facts.statistics.get("notes", [])]
    notes.append('p is of "errs as much as naive", adjusted for the number of candidates (Holm).')
    return Table("pooled", "Skill over naive, all stocks together", columns, groups, notes)


def _pooled_row(now: Mapping[str, Any], to_date: Mapping[str, Any] | None) -> list[Cell]:
    this_month = Cell(percent(now["skill"]), tone=tone_of(now["skill"]))
    if to_date is None:
        return [this_month, *[Cell(NONE)] * 6]
    low, high = to_date["skill_low"], to_date["skill_high"]
    between = NONE if low is None else f"{percent(low)} to {percent(high)}"
    return [
        this_month,
        Cell(percent(to_date["skill"]), tone=tone_of(to_date["skill"])),
        Cell(between),
        Cell(told(to_date["p_adjusted"], ".2g")),
        *(Cell(str(to_date[name])) for name in ("months", "stocks", "origins")),
    ]


def live(facts: MonthFacts) -> Table:
    """How what stood at the end of the month before did on this month's bars."""
    columns = [Column("stock"), Column("what"), *numbers("MAE %", "naive", "skill, %")]
    columns += numbers("to date, %", "forecasts")
    columns.append(Column("since it was chosen", wide=True))
    groups = [Group(symbol, list(_live_rows(facts, symbol))) for symbol in sorted(facts.live)]
    notes = (
        "Nothing is chosen here: the version that stood forecasts the month's sessions, one "
        "forecast after the other. To date: of whatever was in production in each month.",
    )
    return Table("live", "What was in production, on this month's bars", columns, groups, notes)


def _live_rows(facts: MonthFacts, symbol: str) -> Iterator[list[Cell]]:
    record = facts.live[symbol]
    if not record["entries"]:
        yield [Cell(NONE)] * 6 + [Cell(record["reason"])]
        return
    for name, entry in record["entries"].items():
        at_point = name == POINTER
        past = [r["entries"].get(name) for r in facts.live_before.get(symbol, ())]
        entries = [*filter(None, past), entry]
        own, naive = ([x for e in entries for x in e[key]] for key in ("losses", "naive_losses"))
        drift, drifted = record["drift"]["reason"], record["drift"]["drifted"]
        yield [
            Cell(f"{record['in_production']}, in production" if at_point else f"{name} champion"),
            Cell(told(entry["mae_pct"])),
            Cell(told(entry["naive_mae_pct"])),
            Cell(percent(entry["skill"]), tone=tone_of(entry["skill"])),
            Cell(percent(skill(own, naive))),
            Cell(str(len(own))),
            Cell(drift, tone="bad" if drifted else "") if at_point else Cell(),
        ]
