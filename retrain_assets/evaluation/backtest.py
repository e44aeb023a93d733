"""Does retraining pay? Months walked forward, each model scored on sessions it had not seen.

A month's adapters and settings are made from bars before its test, and the production pointer is
scored as it stood at the end of the month before. So filling in past months is a backtest of the
whole policy, and nothing has to be forecast again for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import NAIVE, candidate_name
from retrain_assets.evaluation.pooled_skill import pooled_losses, pooled_skill
from retrain_assets.evaluation.pooling import relative_losses, skill
from retrain_assets.evaluation.significance import ALPHA, MIN_MONTHS, holm
from retrain_assets.evaluation.stock_record import SHOWN, StockRecord, families_of, number
from retrain_assets.evaluation.versions import POINTER

if TYPE_CHECKING:
    from rich.table import Table

_INCUMBENT = "pointer.incumbent"


def backtest_report(
    records: Sequence[StockRecord], champions: Sequence[Mapping[str, Any]], *, seed: int = 0
) -> dict[str, Any]:
    """Skill over naive by month and of all months so far, as a JSON object.

    records: comparisons of any stocks and months; provisional ones are left out, and of several
    of one stock and month the last counts. champions: records of promotion, for the pointer.
    seed: of the bootstrap. Errors are those of the test forecasts of H bars, relative to the
    close of their origin. Within a family only stock-months count that have all its columns
    that occur at all, so its columns are of the same origins. Keys:

    - `months`, `stocks`: names; `stock_months`, `origins`: counts; `holdout_days`: all that occur;
    - `by_month`: rows with `month`, `family`, `stocks`, `naive_pct` (naive's mean error in % of
      the origin's close), and `skill` and `to_date` by column: `zero_shot`, `adapter`, `chosen`
      and `pointer`, in that month and in all up to it;
    - `pooled`: by family and column, `pooled_report.pooled_skill` over naive of all months;
    - `answers`: `subject`, `against`, `pooled_skill` of one over the other, `p_adjusted` for the
      number of answers (Holm), and the `sentence`;
    - `missing`: months in between that have no record, and by month the stocks that others have;
      `without_pointer`: by month the stocks without a champion record, for which the pointer
      is scored as naive; `unmatched`: by family the stock-months that lack a column;
    - `notes`: these in words.

    Raises BadInput if no record is of a month that is over.
    """
    final = [record for record in records if not record["provisional"]]
    if not final:
        raise BadInput(
            "no comparison of a month that is over: run past months first, then the report"
        )
    losses, without_pointer = _with_pointer(pooled_losses(final), champions)
    families = {family: _matched(losses, family) for family in families_of(final)}
    everything = _stock_months(losses)
    unmatched = {family: everything - _stock_months(rows) for family, rows in families.items()}
    report = {
        "months": _names(losses, "month"),
        "stocks": _names(losses, "symbol"),
        "stock_months": everything,
        "origins": len(losses),
        "holdout_days": sorted({record["holdout_days"] for record in final}),
        "by_month": [row for f, rows in families.items() for row in _by_month(f, rows)],
        "pooled": {f: _pooled(rows, seed) for f, rows in families.items()},
        "answers": _answers(losses, families, seed),
        "missing": _missing(losses),
        "without_pointer": without_pointer,
        "unmatched": {family: count for family, count in unmatched.items() if count},
    }
    return report | {"notes": _notes(report, len(records) - len(final))}


def _with_pointer(
    losses: pd.DataFrame, champions: Sequence[Mapping[str, Any]]
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The losses with a column for the pointer, and the stocks by month that have none."""
    known = {
        (champion["month"], champion["symbol"]): relative_losses(champion["losses"]["test"])
        for champion in champions
        if "test" in champion["losses"]
    }
    parts: list[pd.DataFrame] = []
    without: dict[str, list[str]] = {}
    for (month, symbol), rows in losses.groupby(level=["month", "symbol"]):
        table = known.get((str(month), str(symbol)))
        cutoffs = rows.index.get_level_values("cutoff")
        if table is not None and cutoffs.isin(table.index).all():
            pointed = table[_INCUMBENT].loc[cutoffs].to_numpy()
        else:
            without.setdefault(str(month), []).append(str(symbol))
            pointed = rows[NAIVE].to_numpy()
        parts.append(rows.assign(**{POINTER: pointed}))
    return pd.concat(parts), without


def _matched(losses: pd.DataFrame, family: str) -> pd.DataFrame:
    """Naive, the family's columns and the pointer, by variant, on origins that have them all."""
    names = {candidate_name(family, variant): str(variant) for variant in SHOWN}
    present = {name: variant for name, variant in names.items() if name in losses}
    return losses[[NAIVE, *present, POINTER]].rename(columns=present).dropna()


def _by_month(family: str, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A family's skill over naive in each month, and in all up to it."""
    months = rows.index.get_level_values("month")
    for month in _names(rows, "month"):
        now, so_far = rows[months == month], rows[months <= month]
        yield {
            "month": month,
            "family": family,
            "stocks": len(_names(now, "symbol")),
            "naive_pct": float(100 * now[NAIVE].mean()),
            "skill": {name: skill(now[name], now[NAIVE]) for name in _columns(rows)},
            "to_date": {name: skill(so_far[name], so_far[NAIVE]) for name in _columns(rows)},
        }


def _pooled(rows: pd.DataFrame, seed: int) -> dict[str, dict[str, Any]]:
    return {name: pooled_skill(rows, name, seed=seed) for name in _columns(rows)}


def _answers(
    losses: pd.DataFrame, families: Mapping[str, pd.DataFrame], seed: int
) -> list[dict[str, Any]]:
    """What was asked: retraining against not retraining, and production against naive."""
    asked = [
        {"subject": f"{family} {variant}", "against": "zero-shot"}
        | pooled_skill(rows, variant, against="zero_shot", seed=seed)
        for family, rows in families.items()
        for variant in ("adapter", "chosen")
        if "zero_shot" in rows and variant in rows
    ]
    production = pooled_skill(losses, POINTER, seed=seed)
    asked.append({"subject": "production pointer", "against": NAIVE} | production)
    adjusted = holm({a["subject"]: a["p_value"] for a in asked if a["p_value"] is not None})
    answers = [answer | {"p_adjusted": adjusted.get(answer["subject"])} for answer in asked]
    return [answer | {"sentence": _sentence(answer)} for answer in answers]


def _sentence(answer: Mapping[str, Any]) -> str:
    """One answer in words, with what the numbers allow to say."""
    months, low, high = answer["months"], answer["skill_low"], answer["skill_high"]
    head = f"{answer['subject']} against {answer['against']}: skill {_pct(answer['skill'])} %"
    if low is None or answer["p_adjusted"] is None:
        return f"{head}, too few months to say ({months} of {MIN_MONTHS})"
    certain = answer["p_adjusted"] < ALPHA
    verdict = "not shown to pay"
    if certain and low > 0:
        verdict = "shown to pay"
    elif certain and high < 0:
        verdict = "shown to cost"
    return (
        f"{head}, 95 % interval {_pct(low)} to {_pct(high)} % over {months} months, "
        f"p {answer['p_adjusted']:.2g}: {verdict}"
    )


def _missing(losses: pd.DataFrame) -> dict[str, list[str]]:
    """By month the stocks that have no record, all of them for a month between that has none."""
    months, symbols = _names(losses, "month"), _names(losses, "symbol")
    there = {key[:2] for key in losses.index}
    found = {
        str(month): [symbol for symbol in symbols if (str(month), symbol) not in there]
        for month in pd.period_range(months[0], months[-1], freq="M")
    }
    return {month: absent for month, absent in found.items() if absent}


def _notes(report: Mapping[str, Any], provisional: int) -> list[str]:
    """What is missing or was left out, in words."""
    notes = []
    if provisional:
        notes.append(f"records of a month that is not over, left out: {provisional}")
    if len(days := report["holdout_days"]) > 1:
        notes.append(f"forecasts of {', '.join(map(str, days))} sessions are pooled")
    if missing := report["missing"]:
        count = sum(map(len, missing.values()))
        notes.append(f"stock-months without a comparison: {count}, in {len(missing)} months")
    for family, count in report["unmatched"].items():
        notes.append(f"stock-months of {family} that lack a column, left out there: {count}")
    if without := report["without_pointer"]:
        count = sum(map(len, without.values()))
        notes.append(f"stock-months without a champion record, whose pointer is naive's: {count}")
    return notes


def render_backtest(report: Mapping[str, Any], *, caption: str) -> Table:
    """The report as a table for a terminal of 100 columns.

    One row per family and month: stocks, naive's error in % of the price forecast from, and the
    skill over naive in % of zero-shot, adapter, chosen and the production pointer, each in that
    month and in all up to it. Then by family the 95 % interval of all months, `-` with fewer
    than six. Below stand the caption, the answers and the notes.
    """
    from rich.table import Table

    days = ", ".join(map(str, report["holdout_days"]))
    table = Table(
        title=f"Walk-forward: test skill % over naive, {days} sessions ahead",
        caption="\n".join(
            [caption, *(answer["sentence"] for answer in report["answers"]), *report["notes"]]
        ),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    columns = (*SHOWN, POINTER)
    for heading in ("month", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in ("stocks", "naive\nerror %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name.replace("_", "-"), justify="right", no_wrap=True)
        table.add_column("to\ndate", justify="right", no_wrap=True)
    for family, pooled in report["pooled"].items():
        for row in report["by_month"]:
            if row["family"] == family:
                table.add_row(*_month_cells(row, columns))
        table.add_row("95 %", family, "", "", *_interval_cells(pooled, columns))
        table.add_row()
    return table


def _month_cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    cells = [row["month"], row["family"], str(row["stocks"]), number(row["naive_pct"])]
    for name in columns:
        cells += [_pct(row["skill"].get(name)), _pct(row["to_date"].get(name))]
    return cells


def _interval_cells(pooled: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Lower limits under the months' skills, upper ones under those to date."""
    cells = []
    for name in columns:
        found = pooled.get(name, {})
        low, high = found.get("skill_low"), found.get("skill_high")
        cells += ["-", "-"] if low is None else [f"{_pct(low)} to", _pct(high)]
    return cells


def _columns(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.columns if name != NAIVE]


def _names(losses: pd.DataFrame, level: str) -> list[str]:
    return sorted(losses.index.get_level_values(level).unique())


def _stock_months(losses: pd.DataFrame) -> int:
    return len({key[:2] for key in losses.index})


def _pct(value: float | None) -> str:
    return number(value, 100, "+z.1f")
