"""What people read of a comparison: one record a stock, the month's summary files, a table.

A `StockRecord` is plain JSON, so that stocks can be compared on their own and gathered later
by whoever finds them. The summary keeps the file name and field names of the guide's
`comparison_summary_h{H}.json` and adds what an honest reading needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pandas as pd

from retrain_assets.evaluation.comparison import GROUP, NAIVE, VARIANTS, Variant

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

    from retrain_assets.evaluation.significance import Verdict

Scope = Literal["holdout", "plan"]
_SCORES = ("mae", "mae_median", "mae_pct", "return_mae", "rmse", "skill", "coverage_80")
_BROKEN = {
    "difficulty": "diffi-\nculty",
    "zero-shot": "zero-\nshot",
    "incumbent": "incum-\nbent",
}
"""Headings over two lines, for a table that would not fit otherwise."""


class StockRecord(TypedDict):
    """One stock's comparison as a JSON object.

    plan_horizon, holdout_days: bars of the plan's forecasts (h) and of the holdout's (H).
    latency_s: seconds of one H-bar forecast by candidate.
    winner, p_values, reason: the verdict (see `significance.winner`).
    scores: rows of `metrics.scores`; a value that does not exist is null.
    """

    symbol: str
    bars: int
    difficulty: str
    plan_horizon: int
    holdout_days: int
    latency_s: dict[str, float]
    winner: str
    p_values: dict[str, float]
    reason: str
    scores: list[dict[str, Any]]


def stock_record(
    scores: pd.DataFrame,
    verdict: Verdict,
    *,
    symbol: str,
    bars: int,
    difficulty: str,
    plan_horizon: int,
    holdout_days: int,
    latency_s: Mapping[str, float],
) -> StockRecord:
    """Gather one stock's results; see `StockRecord` for what each is."""
    columns = [*GROUP, "candidate", "origins", *_SCORES]
    rows = scores.loc[scores["unique_id"] == symbol, columns].astype(object)
    values = rows.where(rows.notna(), None)
    return StockRecord(
        symbol=symbol,
        bars=bars,
        difficulty=difficulty,
        plan_horizon=plan_horizon,
        holdout_days=holdout_days,
        latency_s=dict(latency_s),
        winner=verdict.winner,
        p_values=verdict.p_values,
        reason=verdict.reason,
        scores=[dict(zip(columns, row, strict=True)) for row in values.to_numpy()],
    )


def comparison_summary(
    month: str,
    records: Sequence[StockRecord],
    *,
    failed: Mapping[str, str] | None = None,
    timestamp: str | None = None,
) -> dict[int, dict[str, Any]]:
    """Contents of `comparison_summary_h{H}.json` by plan horizon H, one for each present.

    A file has `forecast_horizon`, `month`, `timestamp` (as given), `total_stocks` and
    `results` by symbol. The guide's fields of a result are `<family>_mae` (price MAE of the
    adapter), `<family>_latency` (seconds), `winner` (a candidate's name, `naive` or `tie`;
    `none` where the stock failed), `improvement_pct` (100 x the winner's skill over naive;
    0 unless a candidate wins) and `error`. Errors are those of the test forecasts of H bars.
    Added are:

    - `<family>_mae_pct`, `_return_mae`, `_skill`, and the same of `<family>_zero_shot_...`
      and `naive_...`;
    - `origins`, `bars`, `difficulty`, `p_values`, `reason`;
    - `holdout`: the same errors of the holdout forecasts, with its `horizon` and `origins`.

    failed: symbol -> message, for stocks that failed; listed in every file, in place of an
    older record.
    """
    horizons = sorted({record["plan_horizon"] for record in records})
    lost = {
        symbol: {"winner": "none", "improvement_pct": None, "error": message}
        for symbol, message in sorted((failed or {}).items())
    }
    files = {}
    for horizon in horizons:
        chosen = [record for record in records if record["plan_horizon"] == horizon]
        results = {r["symbol"]: _result(r) for r in sorted(chosen, key=lambda r: r["symbol"])}
        results |= lost
        files[horizon] = {
            "forecast_horizon": horizon,
            "month": month,
            "timestamp": timestamp,
            "total_stocks": len(results),
            "results": results,
        }
    return files


def _result(record: StockRecord) -> dict[str, Any]:
    """One stock's entry of a summary file."""
    plan, holdout = _test_scores(record, "plan"), _test_scores(record, "holdout")
    won = plan.get(record["winner"])
    skill = 0.0 if won is None or record["winner"] == NAIVE else won["skill"]
    latencies = {_prefix(n) + "_latency": s for n, s in record["latency_s"].items()}
    return {
        **_flat(plan),
        **latencies,
        "winner": record["winner"],
        "improvement_pct": None if skill is None else 100 * skill,
        "error": None,
        "origins": plan[NAIVE]["origins"],
        "bars": record["bars"],
        "difficulty": record["difficulty"],
        "p_values": record["p_values"],
        "reason": record["reason"],
        "holdout": {
            "horizon": record["holdout_days"],
            "origins": holdout[NAIVE]["origins"],
            **_flat(holdout),
        },
    }


def _flat(scored: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of all candidates in one object, keys as the summary's."""
    metrics = ("mae", "mae_pct", "return_mae", "skill")
    return {
        f"{_prefix(name)}_{metric}": row[metric]
        for name, row in scored.items()
        for metric in metrics
    }


def _prefix(candidate: str) -> str:
    """`kronos.adapter` -> `kronos`, the guide's word; `kronos.zero_shot` -> `kronos_zero_shot`."""
    return candidate.removesuffix(".adapter").replace(".", "_")


def _test_scores(record: StockRecord, scope: Scope) -> dict[str, dict[str, Any]]:
    """The record's test rows of one scope, by candidate."""
    return {
        row["candidate"]: row
        for row in record["scores"]
        if row["segment"] == "test" and row["scope"] == scope
    }


def render_table(
    records: Sequence[StockRecord], *, caption: str, scope: Scope = "holdout"
) -> Table:
    """The comparison as a table for a terminal of 100 columns, test origins only.

    One row per stock and model family, the columns of those candidates that are present:
    MAE % of naive, then MAE % and skill (in % over naive) of each variant, the latency of the
    family's last variant, and the winner: `naive` or `tie` in the stock's first row, or the
    variant that won in its family's row. scope: forecasts of `holdout_days` or of the plan's
    horizon (then a column says how many bars). caption: printed below.
    """
    from rich.table import Table

    names = list(dict.fromkeys(row["candidate"] for r in records for row in r["scores"]))
    families = list(dict.fromkeys(name.split(".")[0] for name in names if name != NAIVE))
    variants = [v for v in VARIANTS if any(name.endswith(f".{v}") for name in names)]
    days = ", ".join(str(d) for d in sorted({r["holdout_days"] for r in records}))
    ahead = "the plan's horizon" if scope == "plan" else f"{days} sessions"
    tight = scope == "plan" or len(variants) == len(VARIANTS)
    table = Table(
        title=f"Test error of {ahead} ahead: MAE % of price, skill % over naive",
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


def _columns(scope: Scope, variants: Sequence[Variant]) -> list[tuple[str, JustifyMethod]]:
    """Heading and alignment of each column."""
    columns: list[tuple[str, JustifyMethod]] = [("stock", "left"), ("bars", "right")]
    columns.append(("difficulty", "left"))
    if scope == "plan":
        columns.append(("ahead", "right"))
    columns += [("naive", "right"), ("model", "left")]
    for variant in variants:
        columns += [(variant.replace("_", "-"), "right"), ("skill", "right")]
    return [*columns, ("latency", "right"), ("winner", "left")]


def _table_rows(
    record: StockRecord, scope: Scope, families: Sequence[str], variants: Sequence[Variant]
) -> list[list[str]]:
    """One row of cells per family; what belongs to the stock stands in the first only."""
    scored = _test_scores(record, scope)
    stock = [record["symbol"], str(record["bars"]), record["difficulty"]]
    stock += [str(record["plan_horizon"])] if scope == "plan" else []
    stock += [_number(scored[NAIVE]["mae_pct"])]
    present = [f for f in families if any(f"{f}.{variant}" in scored for variant in variants)]
    rows: list[list[str]] = []
    for family in present or [""]:
        cells, latency = [], None
        for variant in variants:
            row = scored.get(f"{family}.{variant}", {})
            cells += [_number(row.get("mae_pct")), _number(row.get("skill"), 100, "+.1f")]
            latency = record["latency_s"].get(f"{family}.{variant}", latency)
        head = [""] * len(stock) if rows else stock
        won_by, _, variant_name = record["winner"].partition(".")
        winner = variant_name.replace("_", "-") if won_by == family else ""
        if not variant_name and not rows:
            winner = won_by
        rows.append([*head, family, *cells, _seconds(latency), winner])
    return rows


def _number(value: float | None, factor: float = 1.0, form: str = ".2f") -> str:
    return "-" if value is None else format(factor * value, form)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"
