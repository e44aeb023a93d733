"""One stock's comparison as a record, and the tables that show many of them in a terminal.

A `StockRecord` is plain JSON, so that stocks can be compared on their own and gathered later
by whoever finds them: `summary.py` for a month's files, `pooled_report.py` for what all stocks
and months say together, `stock_report.py` for one stock in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pandas as pd

from retrain_assets.evaluation.comparison import AUTO_ETS, DRIFT, NAIVE, Variant

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

    from retrain_assets.evaluation.significance import Verdict

Scope = Literal["holdout", "plan"]
Segment = Literal["selection", "test"]
SHOWN: tuple[Variant, ...] = ("zero_shot", "adapter", "chosen")
"""Variants in tables that have room for three."""
_BROKEN = {"difficulty": "diffi-\nculty", "zero-shot": "zero-\nshot"}
"""Headings over two lines, for a table that would not fit otherwise."""


class StockRecord(TypedDict):
    """One stock's comparison as a JSON object.

    month, cut: `2023-08`, and the date of the last bar that was seen. provisional: the month's
        last session is not among the bars.
    bars, bars_hash: how many up to the cut, and their digest. seed: of every forecast.
    versions: of libraries. difficulty: easy, medium, hard.
    plan_horizon, holdout_days: bars of the plan's forecasts (h) and of the holdout's (H).
    latency_s, latency_p95_s: seconds of one H-bar forecast by candidate, median and 95 % quantile
        of the same calls.
    winner, p_values, reason: the verdict (see `significance.winner`).
    scores: rows of `metrics.scores`; a value that does not exist is null.
    losses: by segment (selection, test) the H-bar forecasts, origins ascending, as lists of
        equal length: `cutoff` (dates), `origin_close`, and each candidate's mean absolute
        errors in price units.
    candidates: by family `name` and `version` of what would be put into production this month.
    zero_shot, last_month: by family the versions behind these columns, as far as there are any.
    tried: by family the folders of all searches on the selection origins, relative to the store
        of models.
    notes: what was left out, and why.
    """

    symbol: str
    month: str
    cut: str
    provisional: bool
    bars: int
    bars_hash: str
    seed: int
    versions: dict[str, str]
    difficulty: str
    plan_horizon: int
    holdout_days: int
    latency_s: dict[str, float]
    latency_p95_s: dict[str, float]
    winner: str
    p_values: dict[str, float]
    reason: str
    scores: list[dict[str, Any]]
    losses: dict[str, dict[str, Any]]
    candidates: dict[str, dict[str, Any]]
    zero_shot: dict[str, dict[str, Any]]
    last_month: dict[str, dict[str, Any]]
    tried: dict[str, list[str]]
    notes: list[str]


def stock_record(
    scores: pd.DataFrame,
    verdict: Verdict,
    *,
    symbol: str,
    month: str,
    cut: str,
    provisional: bool,
    bars: int,
    bars_hash: str,
    seed: int,
    versions: Mapping[str, str],
    difficulty: str,
    plan_horizon: int,
    holdout_days: int,
    latency_s: Mapping[str, float],
    latency_p95_s: Mapping[str, float],
    losses: Mapping[str, Mapping[str, Any]],
    candidates: Mapping[str, Mapping[str, Any]],
    zero_shot: Mapping[str, Mapping[str, Any]],
    last_month: Mapping[str, Mapping[str, Any]],
    tried: Mapping[str, Sequence[str]],
    notes: Sequence[str] = (),
) -> StockRecord:
    """Gather one stock's results; see `StockRecord` for what each is."""
    return StockRecord(
        symbol=symbol,
        month=month,
        cut=cut,
        provisional=provisional,
        bars=bars,
        bars_hash=bars_hash,
        seed=seed,
        versions=dict(versions),
        difficulty=difficulty,
        plan_horizon=plan_horizon,
        holdout_days=holdout_days,
        latency_s=dict(latency_s),
        latency_p95_s=dict(latency_p95_s),
        winner=verdict.winner,
        p_values=verdict.p_values,
        reason=verdict.reason,
        scores=_score_rows(scores[scores["unique_id"] == symbol]),
        losses={segment: dict(table) for segment, table in losses.items()},
        candidates={family: dict(entry) for family, entry in candidates.items()},
        zero_shot={family: dict(version) for family, version in zero_shot.items()},
        last_month={family: dict(version) for family, version in last_month.items()},
        tried={family: list(folders) for family, folders in tried.items()},
        notes=list(notes),
    )


def scored(record: StockRecord, segment: Segment, scope: Scope) -> dict[str, dict[str, Any]]:
    """The record's rows of scores of one kind, by candidate."""
    return {
        row["candidate"]: row
        for row in record["scores"]
        if row["segment"] == segment and row["scope"] == scope
    }


def families_of(records: Sequence[StockRecord]) -> list[str]:
    """Model families among the candidates; baselines, which have no variants, are none."""
    names = (row["candidate"] for record in records for row in record["scores"])
    return list(dict.fromkeys(name.split(".")[0] for name in names if "." in name))


def number(value: float | None, factor: float = 1.0, form: str = ".2f") -> str:
    """A value for a table, `-` where there is none."""
    return "-" if value is None else format(factor * value, form)


def duration(value: float | None) -> str:
    """Seconds for a table: `72 ms`, `1.20 s`."""
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _score_rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of scores as JSON values."""
    rows = scores.astype(object)
    values = rows.where(rows.notna(), None).to_numpy()
    return [dict(zip(scores.columns, row, strict=True)) for row in values]


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
