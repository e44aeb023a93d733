"""Comparisons and decisions of many stocks as tables for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrain_assets.evaluation.comparison import AUTO_ETS, DRIFT, NAIVE, Variant
from retrain_assets.evaluation.stock_record import (
    SHOWN,
    Scope,
    StockRecord,
    duration,
    families_of,
    number,
    scored,
)

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

_BROKEN = {"difficulty": "diffi-\nculty", "zero-shot": "zero-\nshot"}
"""Headings over two lines, for a table that would not fit otherwise."""


def render_decisions(records: Sequence[Mapping[str, Any]]) -> Table:
    """Champion records as a table for a terminal of 100 columns.

    A row per stock and decision: of each family whether the candidate replaced the champion, then
    of the pointer whether production points elsewhere now, and why. `in production` stands in the
    pointer's row, in brackets where the month is not the stock's latest final one.
    """
    from rich.table import Table

    table = Table(title="Decisions", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("stock", "what", "answer"):
        table.add_column(heading, no_wrap=True)
    table.add_column("why", overflow="fold")
    for record in records:
        symbol = record["symbol"]
        for name, state in record["families"].items():
            answer = "promoted" if state["decision"]["promote"] else "champion stays"
            table.add_row(symbol, name, answer, state["decision"]["reason"])
            symbol = ""
        pointer = record["pointer"]
        to = pointer["to"] if record["live"] else f"({pointer['to']})"
        table.add_row(symbol, "in production", to, pointer["decision"]["reason"])
    return table


def render_table(
    records: Sequence[StockRecord], *, caption: str, scope: Scope = "holdout"
) -> Table:
    """The comparison as a table for a terminal of 100 columns, test origins only.

    One row per stock and model family: MAE % of naive, then MAE % and skill (in % over naive) of
    zero-shot, adapter and chosen settings, as far as present. The other candidates are in
    `render_baselines` and the stock's report. Then the latency of the last variant shown, and the
    winner: a baseline or `tie` in the stock's first row, or the variant that won in its family's
    row. scope: forecasts of `holdout_days`, or of the plan's horizon; then a column says how many
    bars, and the latency, which is that of the holdout's forecast, is not shown. caption: printed
    below.
    """
    from rich.table import Table

    families = families_of(records)
    names = {row["candidate"] for record in records for row in record["scores"]}
    variants = [v for v in SHOWN if any(name.endswith(f".{v}") for name in names)]
    tight = scope == "plan" or len(variants) == len(SHOWN)
    table = Table(
        title=f"Test error of {_ahead(records, scope)}: MAE % of price, skill % over naive",
        caption=caption,
        box=None,
        padding=(0, 1 if tight else 2, 0, 0),
        pad_edge=False,
    )
    for heading, justify in _columns(scope, variants):
        broken = _BROKEN.get(heading, heading) if tight else heading
        table.add_column(broken, justify=justify, no_wrap=True)
    for record in records:
        for row in _table_rows(record, scope, families, variants):
            table.add_row(*row)
    return table


def render_baselines(records: Sequence[StockRecord], *, caption: str) -> Table:
    """What needs no model, on the same test origins, as a table for a terminal of 100 columns.

    One row per stock: MAE % of naive, then skill (in % over naive) of drift and AutoETS, at both
    horizons. A model that does not beat these has learned nothing of use. caption: printed below.
    """
    from rich.table import Table

    days, plan = _ahead(records, "holdout"), _ahead(records, "plan")
    table = Table(
        title=f"Baselines, {days} and {plan}: MAE % of naive, skill % over it",
        caption=caption,
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    headings = ("naive", "drift", "AutoETS")
    table.add_column("stock", no_wrap=True)
    for heading in ("ahead", *headings, "ahead", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        cells = [record["symbol"]]
        scopes: tuple[tuple[Scope, int], ...] = (
            ("holdout", record["holdout_days"]),
            ("plan", record["plan_horizon"]),
        )
        for scope, ahead in scopes:
            rows = scored(record, "test", scope)
            cells += [str(ahead), number(rows[NAIVE]["mae_pct"])]
            cells += [_skill(rows.get(name, {})) for name in (DRIFT, AUTO_ETS)]
        table.add_row(*cells)
    return table


def _ahead(records: Sequence[StockRecord], scope: Scope) -> str:
    if scope == "plan":
        return "the plan's horizon ahead"
    days = sorted({record["holdout_days"] for record in records})
    return f"{', '.join(map(str, days))} sessions ahead"


def _columns(scope: Scope, variants: Sequence[Variant]) -> list[tuple[str, JustifyMethod]]:
    """Heading and alignment of each column."""
    columns: list[tuple[str, JustifyMethod]] = [("stock", "left"), ("bars", "right")]
    columns.append(("difficulty", "left"))
    if scope == "plan":
        columns.append(("ahead", "right"))
    columns += [("naive", "right"), ("model", "left")]
    for variant in variants:
        columns += [(variant.replace("_", "-"), "right"), ("skill", "right")]
    if scope == "holdout":
        columns.append(("latency", "right"))
    return [*columns, ("winner", "left")]


def _table_rows(
    record: StockRecord, scope: Scope, families: Sequence[str], variants: Sequence[Variant]
) -> Iterator[list[str]]:
    """One row of cells per family; what belongs to the stock stands in the first only."""
    rows = scored(record, "test", scope)
    stock = [record["symbol"], str(record["bars"]), record["difficulty"]]
    stock += [str(record["plan_horizon"])] if scope == "plan" else []
    stock += [number(rows[NAIVE]["mae_pct"])]
    present = [f for f in families if any(f"{f}.{variant}" in rows for variant in variants)]
    won_by, _, won_variant = record["winner"].partition(".")
    for place, family in enumerate(present or [""]):
        cells, latency = [], None
        for variant in variants:
            row = rows.get(f"{family}.{variant}", {})
            cells += [number(row.get("mae_pct")), _skill(row)]
            latency = record["latency_s"].get(f"{family}.{variant}", latency)
        cells += [duration(latency)] if scope == "holdout" else []
        head = stock if place == 0 else [""] * len(stock)
        winner = won_variant.replace("_", "-") if won_by == family else ""
        if not won_variant and place == 0:
            winner = won_by
        yield [*head, family, *cells, winner]


def _skill(row: Mapping[str, Any]) -> str:
    return number(row.get("skill"), 100, "+.1f")
