"""What many stocks and months say together: skill of every candidate, pooled, and how sure it is.

One stock's month has one to three test origins and proves nothing. Pooled, losses are relative
to the close of their origin, and months are what is counted: stocks of one month rise and fall
together, so a month is one observation, and six are the fewest that give an interval or a p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooling import relative_losses, skill, skill_interval
from retrain_assets.evaluation.significance import MIN_MONTHS, holm, pooled_test
from retrain_assets.evaluation.stock_record import StockRecord
from retrain_assets.training.policy import DIFFICULTY_TIERS

LEVELS = ["month", "symbol", "difficulty", "cutoff"]
"""Index of a table of pooled losses."""


def pooled_losses(records: Sequence[StockRecord]) -> pd.DataFrame:
    """Relative losses of the test forecasts of H bars: rows origins, columns candidates.

    records: at least one, of any stocks and months; of several of one stock and month the last
    counts. The index has the levels LEVELS, in order of month and symbol; the columns are named
    candidate. NaN where a stock has no such candidate. Raises BadInput for a record without
    losses.
    """
    latest = {(record["month"], record["symbol"]): record for record in records}
    parts = {}
    for (month, symbol), record in sorted(latest.items()):
        if "test" not in record.get("losses", {}):
            raise BadInput(
                f"the comparison of {symbol} {month} has no losses: materialize it again"
            )
        parts[month, symbol, record["difficulty"]] = relative_losses(record["losses"]["test"])
    return pd.concat(parts, names=LEVELS[:-1]).rename_axis(columns="candidate")


def pooled_skill(
    losses: pd.DataFrame, candidate: str, *, against: str = NAIVE, seed: int = 0
) -> dict[str, Any]:
    """Skill of one candidate over another on the origins that have both, as a JSON object.

    losses: as `pooled_losses` gives them. Keys: `skill`; `skill_low` and `skill_high`, its 95 %
    interval from months drawn whole; `p_value`, two-sided, of "errs as much" from means by month
    (`significance.pooled_test`); `months`, `stocks` and `origins` that were counted. Null where
    there is none: interval and p need six months.
    """
    rows = losses[[candidate, against]].dropna()
    own, base = rows[candidate].to_numpy(), rows[against].to_numpy()
    months = list(rows.index.get_level_values("month"))
    interval = skill_interval(own, base, blocks=months, seed=seed)
    low, high = interval or (None, None)
    test = pooled_test(own, base, months)
    return {
        "skill": skill(own, base),
        "skill_low": low,
        "skill_high": high,
        "p_value": None if test is None else test.p_value,
        "months": len(set(months)),
        "stocks": rows.index.get_level_values("symbol").nunique(),
        "origins": len(rows),
    }


def pooled_skills(losses: pd.DataFrame, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """`pooled_skill` over naive of every candidate that has an origin here, by name.

    Each has `p_adjusted` beside `p_value`: adjusted for the number of candidates (Holm).
    """
    names = [name for name in losses.columns[losses.notna().any()] if name != NAIVE]
    found = {str(name): pooled_skill(losses, name, seed=seed) for name in names}
    tested = {name: one["p_value"] for name, one in found.items() if one["p_value"] is not None}
    adjusted = holm(tested)
    return {name: one | {"p_adjusted": adjusted.get(name)} for name, one in found.items()}


def month_statistics(
    records: Sequence[StockRecord], earlier: Sequence[StockRecord] = (), *, seed: int = 0
) -> dict[str, Any]:
    """What the stocks of a month say together, and what all months up to it do, as JSON values.

    records: of one month, at least one. earlier: of other months; provisional and later ones are
    left out, and those of forecasts of another length. Errors are those of the test forecasts of
    H bars, which depend on no plan's horizon. Keys:

    - `pooled`: `pooled_skills` of this month's stocks, by candidate. Stocks of one month move
      together, so no interval and no p come from one month;
    - `pooled_to_date`: the same of all months up to this one, of candidates that any month that is
      over has;
    - `by_difficulty`: by difficulty that occurs, `month` and `to_date` as the two above;
    - `by_month`: by month, ascending, `pooled_skills` of its stocks;
    - `holm`: by candidate and symbol, p of "as good as naive" on the selection origins of this
      month, adjusted for the number of stocks (Holm) after the verdicts adjusted it for that of
      candidates: below 5 %, no other stock or candidate explains it;
    - `notes`: what was left out, and how to take the numbers.
    """
    month = records[0]["month"]
    before, notes = _usable(records, earlier)
    losses = pooled_losses([*before, *records])
    # A month that is not over has test origins of the one before: it does not count twice.
    to_date = [*before, *(record for record in records if not record["provisional"])]
    by_month = {
        str(key): pooled_skills(rows, seed=seed) for key, rows in losses.groupby(level="month")
    }
    return {
        "pooled": by_month[month],
        "pooled_to_date": pooled_skills(pooled_losses(to_date), seed=seed) if to_date else {},
        "by_difficulty": _by_difficulty(losses, month, seed),
        "by_month": by_month,
        "holm": _over_stocks(records),
        "notes": notes,
    }


def skill_over_months(
    records: Sequence[StockRecord],
    earlier: Sequence[StockRecord],
    candidates: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """How the pooled skill of some candidates went on: by name, one object a month, ascending.

    records, earlier: as of `month_statistics`, which leaves out the same. Keys: `month`; `skill` of
    its stocks alone; `to_date`, the `pooled_skill` of all months up to it. Months in which nobody
    has the candidate are left out, and so is a candidate that no month has.
    """
    before, _ = _usable(records, earlier)
    counted = [*before, *(one for one in records if not one["provisional"])]
    if not counted:
        return {}
    losses = pooled_losses(counted)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in (name for name in candidates if name in losses):
        rows = losses[losses[name].notna()]
        months = rows.index.get_level_values("month")
        found[name] = [
            {
                "month": str(month),
                "skill": pooled_skill(rows[months == month], name, seed=seed)["skill"],
                "to_date": pooled_skill(rows[months <= month], name, seed=seed),
            }
            for month in sorted(set(months))
        ]
    return found


def _usable(
    records: Sequence[StockRecord], earlier: Sequence[StockRecord]
) -> tuple[list[StockRecord], list[str]]:
    """The earlier records that may be pooled with a month's, and notes."""
    month = records[0]["month"]
    lengths = sorted({record["holdout_days"] for record in records})
    before = [record for record in earlier if record["month"] < month]
    final = [record for record in before if not record["provisional"]]
    usable = [record for record in final if record["holdout_days"] in lengths]
    notes = [
        f"stocks of one month move together: a month is one observation, and intervals and "
        f"p-values need {MIN_MONTHS} months"
    ]
    if len(lengths) > 1:
        notes.append(f"forecasts of {', '.join(map(str, lengths))} bars are pooled")
    counts = {
        "provisional": len(before) - len(final),
        "of forecasts of another length": len(final) - len(usable),
    }
    if left_out := [f"{count} {kind}" for kind, count in counts.items() if count]:
        notes.append(f"records of earlier months left out: {', '.join(left_out)}")
    return usable, notes


def _by_difficulty(losses: pd.DataFrame, month: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for level in DIFFICULTY_TIERS:
        rows = losses[losses.index.get_level_values("difficulty") == level]
        now = rows[rows.index.get_level_values("month") == month]
        if len(rows):
            found[level] = {
                "month": pooled_skills(now, seed=seed),
                "to_date": pooled_skills(rows, seed=seed),
            }
    return found


def _over_stocks(records: Sequence[StockRecord]) -> dict[str, dict[str, float]]:
    """p-values of the verdicts, Holm-adjusted over the stocks: by candidate, then by symbol."""
    names = dict.fromkeys(name for record in records for name in record["p_values"])
    return {
        name: holm({r["symbol"]: r["p_values"][name] for r in records if name in r["p_values"]})
        for name in names
    }
