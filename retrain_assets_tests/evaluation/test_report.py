"""What people read of a comparison: the summary files' fields, and a table that fits."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from retrain_assets.evaluation.comparison import compare
from retrain_assets.evaluation.metrics import scores
from retrain_assets.evaluation.report import (
    StockRecord,
    comparison_summary,
    render_table,
    stock_record,
)
from retrain_assets.evaluation.significance import Verdict
from retrain_assets_tests.evaluation.forecasters import (
    candidate,
    drift,
    naive,
    random_walk,
    split_of,
)

ONE = ("kronos.zero_shot", "kronos.adapter")
TWO = (*ONE, "toto.zero_shot", "toto.adapter")


def record(
    symbol: str, names: tuple[str, ...] = ONE, *, winner: str = "tie", plan_horizon: int = 16
) -> StockRecord:
    bars, split = random_walk(500, len(symbol)), split_of(500)
    candidates = [naive(64), *(candidate(n, drift, 40 + 20 * i) for i, n in enumerate(names))]
    result = compare(bars, split, candidates, symbol=symbol, seed=0)
    return stock_record(
        scores(result.forecasts, ["naive", *names]),
        Verdict(winner, dict.fromkeys(names, 0.5), "because"),
        symbol=symbol,
        bars=500,
        difficulty="medium",
        plan_horizon=plan_horizon,
        holdout_days=7,
        latency_s=dict.fromkeys(["naive", *names], 0.1234),
    )


def score(got: StockRecord, candidate: str, scope: str, metric: str) -> float:
    (row,) = [
        row
        for row in got["scores"]
        if (row["segment"], row["scope"], row["candidate"]) == ("test", scope, candidate)
    ]
    return float(row[metric])


def text(records: list[StockRecord], scope: str = "holdout") -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_table(records, caption="max_steps 150", scope=scope))  # type: ignore[arg-type]  # a plain str in tests
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_record_is_plain_json() -> None:
    got = record("NVDA")
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert len(got["scores"]) == 3 * 3


def test_a_score_that_does_not_exist_is_null() -> None:
    bars, split = random_walk(500, 0), split_of(500)
    table = compare(bars, split, [naive(64)], symbol="A", seed=0).forecasts
    table["naive"] = table["y"]  # a naive that never errs leaves skill undefined
    got = stock_record(
        scores(table, ["naive"]),
        Verdict("tie", {}, ""),
        symbol="A",
        bars=500,
        difficulty="easy",
        plan_horizon=16,
        holdout_days=7,
        latency_s={"naive": 0.1},
    )
    assert {row["skill"] for row in got["scores"]} == {None}
    summary = comparison_summary("2023-08", [got])
    assert summary[16]["results"]["A"]["naive_skill"] is None


def test_one_summary_per_plan_horizon_with_the_guides_fields() -> None:
    won = record("NVDA", TWO, winner="kronos.adapter")
    records = [won, record("AAPL"), record("TSLA", plan_horizon=64)]
    files = comparison_summary(
        "2023-08", records, failed={"SPY": "has 200 bars"}, timestamp="2023-09-01T00:00:00Z"
    )
    assert list(files) == [16, 64]
    file = files[16]
    assert file["forecast_horizon"] == 16
    assert file["month"] == "2023-08"
    assert file["timestamp"] == "2023-09-01T00:00:00Z"
    assert file["total_stocks"] == 3
    assert list(file["results"]) == ["AAPL", "NVDA", "SPY"]
    assert list(files[64]["results"]) == ["TSLA", "SPY"]
    nvda = file["results"]["NVDA"]
    assert nvda["kronos_mae"] == score(won, "kronos.adapter", "plan", "mae")
    assert nvda["toto_mae"] == score(won, "toto.adapter", "plan", "mae")
    assert nvda["kronos_return_mae"] == score(won, "kronos.adapter", "plan", "return_mae")
    assert nvda["kronos_zero_shot_mae"] == score(won, "kronos.zero_shot", "plan", "mae")
    assert nvda["naive_mae_pct"] == score(won, "naive", "plan", "mae_pct")
    assert nvda["kronos_latency"] == nvda["toto_latency"] == 0.1234
    assert nvda["winner"] == "kronos.adapter"
    assert nvda["improvement_pct"] == 100 * score(won, "kronos.adapter", "plan", "skill")
    assert nvda["error"] is None
    assert nvda["origins"] == 8
    holdout = nvda["holdout"]
    assert (holdout["horizon"], holdout["origins"]) == (7, 3)
    assert holdout["kronos_mae"] == score(won, "kronos.adapter", "holdout", "mae")
    assert holdout["kronos_mae"] != nvda["kronos_mae"]
    assert file["results"]["AAPL"]["improvement_pct"] == 0
    assert "toto_mae" not in file["results"]["AAPL"]
    assert file["results"]["SPY"] == {
        "winner": "none",
        "improvement_pct": None,
        "error": "has 200 bars",
    }
    json.dumps(files, allow_nan=False)
    assert comparison_summary("2023-08", [], failed={"SPY": "x"}) == {}
    stale = comparison_summary("2023-08", records, failed={"AAPL": "x"})[16]
    assert stale["results"]["AAPL"]["error"] == "x"
    assert stale["total_stocks"] == len(stale["results"]) == 2


def test_the_table_of_one_family() -> None:
    got = record("NVDA", winner="kronos.adapter")
    lines = text([got, record("BRK.B")])
    (row,) = [line for line in lines if line.startswith("NVDA")]
    mae = score(got, "kronos.adapter", "holdout", "mae_pct")
    skill = 100 * score(got, "kronos.adapter", "holdout", "skill")
    base = score(got, "naive", "holdout", "mae_pct")
    assert row.split()[:5] == ["NVDA", "500", "medium", f"{base:.2f}", "kronos"]
    assert row.split()[7:] == [f"{mae:.2f}", f"{skill:+.1f}", "123", "ms", "adapter"]
    assert "7 sessions" in lines[0]
    assert "max_steps 150" in lines[-1]
    assert not any("…" in line for line in lines)


def test_the_table_of_two_families_and_an_incumbent_fits_100_columns() -> None:
    names = (*TWO, "kronos.incumbent")
    lines = text([record("NVDA", names, winner="toto.zero_shot"), record("AAPL")], "plan")
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 100
    heading = next(line for line in lines if line.startswith("stock"))
    assert heading.split().count("skill") == 3, heading
    assert "ahead" in heading
    first, second = [line for line in lines if "kronos " in line or "toto " in line][:2]
    assert first.startswith("NVDA")
    assert second.split()[0] == "toto"
    assert second.split().count("-") == 2, "toto has no incumbent: neither MAE nor skill"
    assert first.endswith("ms")
    assert second.endswith("zero-shot")
    assert sum("AAPL" in line for line in lines) == 1


@pytest.mark.parametrize(("seconds", "shown"), [(0.0004, "0 ms"), (0.25, "250 ms"), (2, "2.00 s")])
def test_latency_is_readable(seconds: float, shown: str) -> None:
    got = record("NVDA")
    got["latency_s"]["kronos.adapter"] = seconds
    assert any(shown in line for line in text([got]))
