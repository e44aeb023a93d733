"""A month's comparison in files: the guide's names, with what an honest reading needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooled_skill import month_statistics
from retrain_assets.evaluation.stock_record import StockRecord, scored

_METRICS = ("mae", "mae_pct", "return_mae", "mase", "crps", "skill")


def comparison_summary(
    month: str,
    records: Sequence[StockRecord],
    *,
    failed: Mapping[str, str] | None = None,
    timestamp: str | None = None,
    earlier: Sequence[StockRecord] = (),
    seed: int = 0,
) -> dict[int, dict[str, Any]]:
    """Contents of `comparison_summary_h{H}.json` by plan horizon H, one for each present.

    A file has `forecast_horizon`, `month`, `timestamp` (as given), `total_stocks` and
    `results` by symbol. The guide's fields of a result are `<family>_mae` (price MAE of the
    family's candidate), `<family>_latency` (its seconds, the median), `winner` (a candidate's
    name, `naive` or `tie`; `none` where the stock failed), `improvement_pct` (100 x the winner's
    skill over naive; 0 unless a candidate wins) and `error`. Errors are those of the test
    forecasts of H bars. The candidate is what would be put into production: the adapter with
    published settings, with chosen ones, or a refined one. Added to a result are:

    - `<family>_candidate`: which of them, as `<family>.<variant>`; `<family>_params`: its
      settings;
    - `<family>_mae_pct`, `_return_mae` (a fraction), `_mase`, `_crps` (price units), `_skill`,
      and `<family>_latency_p95`;
    - the same of every candidate: `<family>_zero_shot_...`, `_adapter_...`, `_chosen_...`,
      `_refined_...`, `_last_month_...`, `naive_...`, `drift_...`, `auto_ets_...`;
    - `origins`, `bars`, `difficulty`, `cut`, `provisional`, `p_values`, `reason`, `notes`;
    - `holdout`: the same errors of the holdout forecasts, with its `horizon` and `origins`.

    Added to a file are `wins` (how many of its results each winner has) and, alike in every file
    of the month, the keys of `pooled_report.month_statistics` over all its stocks.

    failed: symbol -> message, for stocks that failed; listed in every file, in place of an
    older record, which counts nowhere. earlier: records of other months, for what is pooled to
    date; see there. seed: of the bootstrap.
    """
    lost = {
        symbol: {"winner": "none", "improvement_pct": None, "error": message}
        for symbol, message in sorted((failed or {}).items())
    }
    sound = [record for record in records if record["symbol"] not in lost]
    statistics = month_statistics(sound, earlier, seed=seed) if sound else {}
    files = {}
    for horizon in sorted({record["plan_horizon"] for record in records}):
        own = [record for record in sound if record["plan_horizon"] == horizon]
        results = {r["symbol"]: _result(r) for r in sorted(own, key=lambda r: r["symbol"])} | lost
        files[horizon] = {
            "forecast_horizon": horizon,
            "month": month,
            "timestamp": timestamp,
            "total_stocks": len(results),
            "wins": dict(Counter(result["winner"] for result in results.values())),
            **statistics,
            "results": results,
        }
    return files


def _result(record: StockRecord) -> dict[str, Any]:
    """One stock's entry of a summary file."""
    plan, holdout = scored(record, "test", "plan"), scored(record, "test", "holdout")
    won = plan.get(record["winner"])
    skill = 0.0 if won is None or record["winner"] == NAIVE else won["skill"]
    named = {
        key: value
        for family, entry in record["candidates"].items()
        for key, value in (
            (f"{family}_candidate", entry["name"]),
            (f"{family}_params", entry["version"]["settings"]),
        )
    }
    return {
        **_errors(record, plan),
        **_by_prefix(record, record["latency_s"], "latency"),
        **_by_prefix(record, record["latency_p95_s"], "latency_p95"),
        **named,
        "winner": record["winner"],
        "improvement_pct": None if skill is None else 100 * skill,
        "error": None,
        "origins": plan[NAIVE]["origins"],
        "bars": record["bars"],
        "difficulty": record["difficulty"],
        "cut": record["cut"],
        "provisional": record["provisional"],
        "p_values": record["p_values"],
        "reason": record["reason"],
        "notes": record["notes"],
        "holdout": {
            "horizon": record["holdout_days"],
            "origins": holdout[NAIVE]["origins"],
            **_errors(record, holdout),
        },
    }


def _errors(record: StockRecord, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of all candidates in one object, keys as the summary's; null where one is lacking.

    A record that an earlier version of the code has written lacks the scores that are new.
    """
    fields: dict[str, Any] = {}
    for metric in _METRICS:
        fields |= _by_prefix(record, {name: row.get(metric) for name, row in rows.items()}, metric)
    return fields


def _by_prefix(record: StockRecord, values: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """Values by candidate under the summary's keys.

    `kronos.chosen` becomes `kronos_chosen_<suffix>`, and `kronos_<suffix>` as well, the guide's
    name, if that is the family's candidate.
    """
    candidates = {family: entry["name"] for family, entry in record["candidates"].items()}
    named = {family: values[name] for family, name in candidates.items() if name in values}
    return {
        f"{name.replace('.', '_')}_{suffix}": value for name, value in {**named, **values}.items()
    }
