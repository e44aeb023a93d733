"""The walk-forward report: matched stock-months, the pointer out of sample, honest answers."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.backtest import backtest_report, render_backtest
from retrain_assets.evaluation.stock_record import StockRecord
from retrain_assets_tests.evaluation.records import loss_record

FAMILIES = ("kronos", "toto")


def months(count: int) -> list[str]:
    return [f"{2022 + m // 12}-{m % 12 + 1:02d}" for m in range(count)]


def walked(
    count: int, *, gain: float = 0.0, families: Sequence[str] = FAMILIES, stocks: int = 3
) -> list[StockRecord]:
    """Months in which adapters err less than their base by about this share, bases as naive."""
    records = []
    for place, month in enumerate(months(count)):
        draw = np.random.default_rng(place)
        for stock in range(stocks):
            naive = draw.uniform(2, 4, 3)
            losses = {"naive": naive.tolist(), "drift": naive.tolist()}
            for family in families:
                base = naive * (1 + draw.normal(0, 0.05, 3))
                adapter = base * (1 - gain + draw.normal(0, 0.02, 3))
                losses[f"{family}.zero_shot"] = base.tolist()
                losses[f"{family}.adapter"] = adapter.tolist()
                losses[f"{family}.chosen"] = (adapter * (1 + draw.normal(0, 0.01, 3))).tolist()
                losses[f"{family}.last_month"] = [99.0] * 3
            records.append(loss_record(f"S{stock}", month, losses))
    return records


def promoted(record: StockRecord, column: str) -> dict[str, Any]:
    """The champion record of a month that production entered with this column's version."""
    test = record["losses"]["test"]
    table = {"cutoff": test["cutoff"], "origin_close": test["origin_close"]}
    table |= {"naive": test["naive"], "pointer.incumbent": test[column]}
    return {"month": record["month"], "symbol": record["symbol"], "losses": {"test": table}}


def lines(report: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_backtest(report, caption="nano bases"))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def by_hand() -> tuple[list[StockRecord], list[dict[str, Any]]]:
    columns = ("naive", "m.zero_shot", "m.adapter", "m.chosen")
    values = {
        "2023-01": ([4.0, 4.0], [2.0, 2.0], [1.0, 1.0], [0.0, 2.0]),
        "2023-03": ([2.0, 2.0], [3.0, 3.0], [2.0, 2.0], [1.0, 0.0]),
    }
    records = [
        loss_record("A", month, dict(zip(columns, losses, strict=True)))
        for month, losses in values.items()
    ]
    return records, [promoted(records[1], "m.zero_shot")]


def test_skill_by_month_and_to_date_computed_by_hand() -> None:
    report = backtest_report(*by_hand())
    first, second = report["by_month"]
    assert (first["month"], first["family"], first["stocks"]) == ("2023-01", "m", 1)
    assert first["naive_pct"] == pytest.approx(4.0)
    expected = {"zero_shot": 0.5, "adapter": 0.75, "chosen": 0.75, "pointer": 0.0}
    assert first["skill"] == pytest.approx(expected)
    assert first["to_date"] == first["skill"]
    assert second["skill"] == pytest.approx(
        {"zero_shot": -0.5, "adapter": 0.0, "chosen": 0.75, "pointer": -0.5}
    )
    to_date = {
        "zero_shot": 1 - 10 / 12,
        "adapter": 0.5,
        "chosen": 0.75,
        "pointer": 1 - (8 + 6) / 12,
    }
    assert second["to_date"] == pytest.approx(to_date)
    pooled = {name: found["skill"] for name, found in report["pooled"]["m"].items()}
    assert pooled == pytest.approx(to_date)
    assert report["pooled"]["m"]["chosen"]["skill_low"] is None
    answers = {(a["subject"], a["against"]): a for a in report["answers"]}
    assert answers["m chosen", "zero-shot"]["skill"] == pytest.approx(1 - 3 / 10)
    assert answers["m adapter", "zero-shot"]["skill"] == pytest.approx(1 - 6 / 10)
    assert answers["production pointer", "naive"]["skill"] == pytest.approx(to_date["pointer"])
    assert answers["m chosen", "zero-shot"]["sentence"] == (
        "m chosen against zero-shot: skill +70.0 %, too few months to say (2 of 6)"
    )


def test_what_is_missing_is_counted_and_said() -> None:
    records, champions = by_hand()
    records.append(loss_record("B", "2023-03", {"naive": [1.0], "m.zero_shot": [1.0]}))
    records.append(loss_record("A", "2023-04", {"naive": [1.0]}, provisional=True))
    report = backtest_report(records, champions)
    assert report["months"] == ["2023-01", "2023-03"]
    assert report["stocks"] == ["A", "B"]
    assert (report["stock_months"], report["origins"]) == (3, 5)
    assert report["missing"] == {"2023-01": ["B"], "2023-02": ["A", "B"]}
    assert report["without_pointer"] == {"2023-01": ["A"], "2023-03": ["B"]}
    assert report["unmatched"] == {"m": 1}
    assert report["notes"] == [
        "records of a month that is not over, left out: 1",
        "stock-months without a comparison: 3, in 2 months",
        "stock-months of m that lack a column, left out there: 1",
        "stock-months without a champion record, whose pointer is naive's: 2",
    ]
    assert report["by_month"] == backtest_report(*by_hand())["by_month"], "B lacks an adapter"


@pytest.mark.parametrize("stale", ["other origins", "kept"])
def test_a_champion_record_of_other_origins_is_no_pointer(stale: str) -> None:
    records, champions = by_hand()
    if stale == "kept":
        champions[0]["losses"] = {}
    else:
        champions[0]["losses"]["test"]["cutoff"] = ["2023-02-01", "2023-02-08"]
    report = backtest_report(records, champions)
    assert report["without_pointer"] == {"2023-01": ["A"], "2023-03": ["A"]}
    assert report["by_month"][1]["skill"]["pointer"] == 0


def test_retraining_that_pays_is_shown_to_pay() -> None:
    records = walked(12, gain=0.1)
    report = backtest_report(records, [promoted(r, "toto.adapter") for r in records])
    answers = {a["subject"]: a for a in report["answers"]}
    assert set(answers) == {f"{f} {v}" for f in FAMILIES for v in ("adapter", "chosen")} | {
        "production pointer"
    }
    for answer in answers.values():
        assert 0.05 < answer["skill_low"] < answer["skill"] < answer["skill_high"]
        assert answer["p_value"] <= answer["p_adjusted"] < 0.05
        assert answer["sentence"].endswith(": shown to pay")
    low, high = (100 * answers["toto chosen"][key] for key in ("skill_low", "skill_high"))
    assert (
        f"95 % interval {low:+.1f} to {high:+.1f} % over 12 months"
        in (answers["toto chosen"]["sentence"])
    )
    worse = backtest_report(walked(12, gain=-0.1), [])["answers"][0]
    assert worse["sentence"].endswith(": shown to cost")


def test_retraining_without_effect_is_not_shown_to_pay() -> None:
    """Of twenty answers about adapters that are as good as their bases, few may be certain."""
    certain, history = 0, walked(40, stocks=1)
    for start in range(0, 40, 8):
        records = history[start : start + 8]
        answers = backtest_report(records, [])["answers"]
        certain += sum(not a["sentence"].endswith("not shown to pay") for a in answers[:4])
        assert answers[-1]["skill"] == 0, "a pointer that nobody moved is naive"
        assert answers[-1]["sentence"].endswith("not shown to pay")
    assert certain <= 2


def test_the_report_is_plain_json_repeats_and_counts_a_stocks_month_once() -> None:
    records = walked(7)
    champions = [promoted(record, "kronos.chosen") for record in records]
    report = backtest_report(records, champions)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    stale = [loss_record("S0", "2022-01", {"naive": [1.0] * 3})]
    assert backtest_report([*stale, *records], champions) == report
    assert backtest_report(records, champions, seed=1)["pooled"] != report["pooled"]
    for row in report["by_month"]:
        if row["family"] == "kronos":
            assert row["skill"]["pointer"] == row["skill"]["chosen"]
    assert set(report["by_month"][0]["skill"]) == {"zero_shot", "adapter", "chosen", "pointer"}


def test_the_table_fits_100_columns_and_says_what_it_found() -> None:
    records = walked(13)
    report = backtest_report(records, [promoted(r, "kronos.chosen") for r in records[:20]])
    shown = lines(report)
    assert max(map(len, shown)) <= 100
    assert not any("…" in line for line in shown)
    assert sum(line.startswith("2022-") for line in shown) == 24
    intervals = [line for line in shown if line.startswith("95 %  ")]
    assert [line.split()[2] for line in intervals] == list(FAMILIES)
    found = report["pooled"]["toto"]["chosen"]
    low, high = (f"{100 * found[key]:+.1f}" for key in ("skill_low", "skill_high"))
    assert f"{low} to {high}" in " ".join(intervals[1].split())
    together = " ".join(" ".join(shown).split())
    for answer in report["answers"]:
        assert answer["sentence"] in together
    assert "nano bases" in together
    assert "whose pointer is naive's: 19" in together


def test_few_months_and_a_missing_column_are_dashes() -> None:
    records = walked(2)
    for record in records:
        del record["losses"]["test"]["toto.chosen"]
    shown = lines(backtest_report(records, []))
    (interval,) = [line for line in shown if line.startswith("95 %") and "kronos" in line]
    assert interval.split().count("-") == 8
    (row,) = [line for line in shown if line.startswith("2022-01") and "toto" in line]
    assert row.split().count("-") == 2


def test_without_a_month_that_is_over_there_is_no_report() -> None:
    with pytest.raises(BadInput, match="no comparison of a month that is over"):
        backtest_report([loss_record("A", "2023-08", {"naive": [1.0]}, provisional=True)], [])
