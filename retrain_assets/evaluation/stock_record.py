"""One stock's comparison as a record of plain JSON.

So stocks are compared on their own and gathered later by whoever finds them:
`comparison_summary.py` for a month's files, `pooled_skill.py` for what all stocks and months say
together, `stock_report.py` for one stock in words, `terminal_tables.py` for the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pandas as pd

from retrain_assets.evaluation.comparison import Variant

if TYPE_CHECKING:
    from retrain_assets.evaluation.significance import Verdict

Scope = Literal["holdout", "plan"]
Segment = Literal["selection", "test"]
SHOWN: tuple[Variant, ...] = ("zero_shot", "adapter", "chosen")
"""Variants in tables that have room for three."""


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
