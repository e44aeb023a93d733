"""Chosen settings as the guide's JSON and as a table that fits."""

from __future__ import annotations

import dataclasses
import io
import json

from rich.console import Console

from retrain_assets.evaluation.params import ParamsRecord
from retrain_assets.evaluation.params_report import (
    render_params,
    validation_entry,
    validation_results,
)
from retrain_assets_tests.evaluation.test_params import the_record

FAILED = "NVDA has 200 bars"


def text(records: list[ParamsRecord]) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_params(records, caption="num_samples 5 and 10"))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_guides_fields_hold_the_score_of_the_test_window() -> None:
    entry = validation_entry("NVDA", {"kronos": the_record()})
    assert entry["stock"] == "NVDA"
    kronos = entry["kronos"]
    test, selection = the_record().summary["test"], the_record().summary["selection"]
    assert kronos["status"] == "success"
    assert kronos["best_params"] == {
        **the_record().chosen,
        "mae": test["chosen"]["mae"],
        "mae_pct": test["chosen"]["mae_pct"],
    }
    assert kronos["best_mae"] == test["chosen"]["mae"] != selection["chosen"]["mae"]
    assert kronos["best_mae_pct"] == test["chosen"]["mae_pct"]
    assert kronos["selection_mae"] == selection["chosen"]["mae"]
    assert kronos["test"]["naive"]["mae"] == test["naive"]["mae"]
    assert kronos["shrinkage_pct"] == the_record().summary["shrinkage_pct"]
    assert (kronos["holdout_days"], kronos["prediction_length"]) == (7, 16)
    assert (kronos["origins"], kronos["test_origins"]) == (26, 3)
    assert kronos["adapter"] == the_record().adapter


def test_the_guides_query_works_on_the_file() -> None:
    entries = [
        validation_entry("SPY", {"kronos": "a reason"}),
        validation_entry("NVDA", {"kronos": the_record(), "toto": FAILED}),
    ]
    stored = json.loads(json.dumps(validation_results(entries), allow_nan=False))
    assert [entry["stock"] for entry in stored] == ["NVDA", "SPY"]
    # .[] | select(.kronos.status=="success") | {stock, mae: .kronos.best_mae}
    found = {
        e["stock"]: e["kronos"]["best_mae"] for e in stored if e["kronos"]["status"] == "success"
    }
    assert found == {"NVDA": the_record().summary["test"]["chosen"]["mae"]}
    assert stored[0]["toto"] == {"status": "failed", "error": FAILED}


def test_the_table_fits_100_columns_and_shows_both_errors() -> None:
    wide = dataclasses.replace(
        the_record(),
        symbol="ADA-USD",
        chosen={"num_samples": 50, "temperature": 0.75, "top_k": None, "top_p": 0.95},
        summary={**the_record().summary, "expected_gain_pct": -123.4, "shrinkage_pct": None},
    )
    lines = text([the_record(), wide])
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert "7 sessions ahead (num_samples/temperature/top_k/top_p)" in lines[0]
    assert "num_samples 5 and 10" in lines[-1]
    row = next(line for line in lines if line.startswith("NVDA")).split()
    test, selection = the_record().summary["test"], the_record().summary["selection"]
    chosen = "/".join("off" if v is None else str(v) for v in the_record().chosen.values())
    assert row[:4] == ["NVDA", "kronos", "26", chosen]
    assert row[4:8] == [
        f"{value:.2f}"
        for value in (
            selection["chosen"]["mae_pct"],
            test["chosen"]["mae_pct"],
            test["default"]["mae_pct"],
            test["naive"]["mae_pct"],
        )
    ]
    assert row[8] == f"{the_record().summary['expected_gain_pct']:+.1f}"
    second = next(line for line in lines if line.startswith("ADA-USD")).split()
    assert second[3] == "50/0.75/off/0.95"
    assert second[8:10] == ["-123.4", "-"]
