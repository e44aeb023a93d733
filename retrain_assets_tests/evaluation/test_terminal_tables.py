"""One stock's record, and the tables that show many of them within 100 columns."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from rich.table import Table

from retrain_assets.evaluation.comparison import compare
from retrain_assets.evaluation.metrics import SCORES, scores
from retrain_assets.evaluation.significance import Verdict
from retrain_assets.evaluation.stock_record import Scope, StockRecord, families_of, stock_record
from retrain_assets.evaluation.terminal_tables import render_baselines, render_table
from retrain_assets_tests.evaluation.forecasters import naive, random_walk, split_of
from retrain_assets_tests.evaluation.records import ALL, BASELINES, ONE, TWO, compared_record


def score(got: StockRecord, candidate: str, scope: str, metric: str) -> float:
    (row,) = [
        row
        for row in got["scores"]
        if (row["segment"], row["scope"], row["candidate"]) == ("test", scope, candidate)
    ]
    return float(row[metric])


def printed(table: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 100
    return lines


def text(records: list[StockRecord], scope: Scope = "holdout") -> list[str]:
    return printed(render_table(records, caption="max_steps 150", scope=scope))


def test_a_record_is_plain_json_with_every_score() -> None:
    got = compared_record("NVDA", ALL)
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert set(got) == set(StockRecord.__annotations__)
    assert len(got["scores"]) == 3 * (1 + len(ALL))
    assert set(SCORES) < set(got["scores"][0])
    selection = [row for row in got["scores"] if row["segment"] == "selection"]
    assert all(row["skill_low"] is not None for row in selection), "26 origins have an interval"
    assert len(got["losses"]["test"]["kronos.chosen"]) == 3


def test_a_score_that_does_not_exist_is_null() -> None:
    bars, split = random_walk(500, 0), split_of(500)
    table = compare(bars, split, [naive(64)], symbol="A", seed=0).forecasts
    table["naive"] = table["y"]  # a naive that never errs leaves skill undefined
    got = compared_record("A", ())
    empty: dict[str, dict[str, str]] = {}
    again = stock_record(
        scores(table, ["naive"]),
        Verdict("tie", {}, ""),
        symbol="A",
        month="2023-08",
        cut="2023-08-31",
        provisional=True,
        bars=500,
        bars_hash="h",
        seed=0,
        versions={},
        difficulty="medium",
        plan_horizon=16,
        holdout_days=7,
        latency_s={"naive": 0.1},
        latency_p95_s={"naive": 0.2},
        losses={},
        candidates=empty,
        zero_shot=empty,
        last_month=empty,
        tried={},
        notes=["toto.last_month is left out: why"],
    )
    assert {row["skill"] for row in again["scores"]} == {None}
    assert {row["mase"] for row in again["scores"]} == {None}
    assert again["notes"] == ["toto.last_month is left out: why"]
    assert set(again) == set(got)


def test_baselines_are_no_families() -> None:
    assert families_of([compared_record("A", (*BASELINES, *TWO))]) == ["kronos", "toto"]
    assert families_of([compared_record("A", BASELINES)]) == []


def test_the_table_of_one_family() -> None:
    got = compared_record("NVDA", ONE[:2], winner="kronos.adapter")
    lines = text([got, compared_record("BRK.B", ONE[:2])])
    (row,) = [line for line in lines if line.startswith("NVDA")]
    mae = score(got, "kronos.adapter", "holdout", "mae_pct")
    skill = 100 * score(got, "kronos.adapter", "holdout", "skill")
    base = score(got, "naive", "holdout", "mae_pct")
    assert row.split()[:5] == ["NVDA", "500", "medium", f"{base:.2f}", "kronos"]
    assert row.split()[7:] == [f"{mae:.2f}", f"{skill:+.1f}", "120", "ms", "adapter"]
    assert "7 sessions" in lines[0]
    assert "max_steps 150" in lines[-1]


@pytest.mark.parametrize("scope", ["holdout", "plan"])
def test_the_table_of_two_families_with_everything_fits_100_columns(scope: Scope) -> None:
    one = compared_record("NVDA", ALL, winner="toto.zero_shot")
    lines = text([one, compared_record("ADA-USD", ALL)], scope)
    heading = next(line for line in lines if line.startswith("stock"))
    assert heading.split().count("skill") == 3, heading
    assert heading.split().index("chosen") == heading.split().index("adapter") + 2
    assert ("ahead" in heading, "latency" in heading) == (scope == "plan", scope == "holdout")
    rows = [line for line in lines if "kronos " in line or "toto " in line]
    assert len(rows) == 4, "drift and auto_ets have no row"
    assert rows[0].startswith("NVDA")
    assert not rows[0].endswith("zero-shot")
    assert rows[1].split()[0] == "toto"
    assert rows[1].endswith("zero-shot")
    chosen = score(one, "kronos.chosen", scope, "mae_pct")
    skill = 100 * score(one, "kronos.chosen", scope, "skill")
    assert f" {chosen:.2f} {skill:+.1f} " in f"{' '.join(rows[0].split())} "
    assert not any("last" in line or "refined" in line for line in lines)


def test_a_family_without_chosen_settings_shows_that_it_has_none() -> None:
    lines = text([compared_record("NVDA", (*ONE, "toto.zero_shot", "toto.adapter"))])
    (row,) = [line for line in lines if line.startswith(" ") and "toto " in line]
    assert row.split().count("-") == 2, "neither MAE nor skill"
    assert row.endswith("150 ms"), "the latency of its adapter"


@pytest.mark.parametrize("winner", ["tie", "naive", "drift", "auto_ets"])
def test_a_baseline_that_wins_stands_in_the_first_row(winner: str) -> None:
    lines = text([compared_record("NVDA", (*BASELINES, *TWO), winner=winner)])
    first, second = [line for line in lines if "kronos " in line or "toto " in line]
    assert first.split()[-1] == winner
    assert winner not in second


def test_the_table_of_baselines_has_both_horizons() -> None:
    got = compared_record("NVDA", (*BASELINES, *ONE))
    lines = printed(render_baselines([got, compared_record("AAPL", ())], caption="max_steps 150"))
    (row,) = [line for line in lines if line.startswith("NVDA")]
    expected = ["NVDA"]
    for scope, ahead in (("holdout", "7"), ("plan", "16")):
        expected += [ahead, f"{score(got, 'naive', scope, 'mae_pct'):.2f}"]
        expected += [f"{100 * score(got, name, scope, 'skill'):+.1f}" for name in BASELINES]
    assert row.split() == expected
    (bare,) = [line for line in lines if line.startswith("AAPL")]
    assert bare.split().count("-") == 4


@pytest.mark.parametrize(("seconds", "shown"), [(0.0004, "0 ms"), (0.25, "250 ms"), (2, "2.00 s")])
def test_latency_is_readable(seconds: float, shown: str) -> None:
    got = compared_record("NVDA", ONE[:2])
    got["latency_s"]["kronos.adapter"] = seconds
    assert any(shown in line for line in text([got]))
