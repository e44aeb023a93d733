"""The month's files: the guide's names, which candidate they are of, and what was added."""

from __future__ import annotations

import copy
import json

from retrain_assets.evaluation.comparison_summary import comparison_summary
from retrain_assets.evaluation.stock_record import StockRecord
from retrain_assets_tests.evaluation.records import ALL, ONE, TWO, compared_record

ADDED = {"pooled", "pooled_to_date", "by_difficulty", "by_month", "holm", "notes"}


def score(got: StockRecord, candidate: str, scope: str, metric: str) -> float:
    (row,) = [
        row
        for row in got["scores"]
        if (row["segment"], row["scope"], row["candidate"]) == ("test", scope, candidate)
    ]
    return float(row[metric])


def test_one_summary_per_plan_horizon_with_the_guides_fields() -> None:
    won = compared_record("NVDA", TWO, winner="kronos.chosen")
    records = [won, compared_record("AAPL"), compared_record("TSLA", plan_horizon=64)]
    files = comparison_summary(
        "2023-08", records, failed={"SPY": "has 200 bars"}, timestamp="2023-09-01T00:00:00Z"
    )
    assert list(files) == [16, 64]
    file = files[16]
    assert file["forecast_horizon"] == 16
    assert file["month"] == "2023-08"
    assert file["timestamp"] == "2023-09-01T00:00:00Z"
    assert file["total_stocks"] == 3
    assert file["wins"] == {"tie": 1, "kronos.chosen": 1, "none": 1}
    assert list(file["results"]) == ["AAPL", "NVDA", "SPY"]
    assert list(files[64]["results"]) == ["TSLA", "SPY"]
    nvda = file["results"]["NVDA"]
    assert nvda["winner"] == "kronos.chosen"
    assert nvda["improvement_pct"] == 100 * score(won, "kronos.chosen", "plan", "skill")
    assert nvda["error"] is None
    assert nvda["origins"] == 8
    assert nvda["notes"] == []
    holdout = nvda["holdout"]
    assert (holdout["horizon"], holdout["origins"]) == (7, 3)
    assert holdout["kronos_mae"] == score(won, "kronos.chosen", "holdout", "mae")
    assert holdout["kronos_mae"] != nvda["kronos_mae"]
    assert file["results"]["AAPL"]["improvement_pct"] == 0
    assert "toto_mae" not in file["results"]["AAPL"]
    assert file["results"]["SPY"] == {
        "winner": "none",
        "improvement_pct": None,
        "error": "has 200 bars",
    }
    assert set(file) >= ADDED
    assert all(file[key] == files[64][key] for key in ADDED), "over all stocks of the month"
    json.dumps(files, allow_nan=False)


def test_the_guides_numbers_are_those_of_the_familys_candidate() -> None:
    record = compared_record("NVDA", ALL)
    record["candidates"]["toto"]["name"] = "toto.adapter"
    (file,) = comparison_summary("2023-08", [record]).values()
    nvda = file["results"]["NVDA"]
    assert nvda["kronos_candidate"] == "kronos.chosen"
    assert nvda["kronos_params"] == {"temperature": 0.7}
    assert nvda["toto_candidate"] == "toto.adapter"
    for metric in ("mae", "mae_pct", "return_mae", "mase", "crps", "skill"):
        for name in ("naive", *ALL):
            key = f"{name.replace('.', '_')}_{metric}"
            assert nvda[key] == score(record, name, "plan", metric)
            assert nvda["holdout"][key] == score(record, name, "holdout", metric)
        assert nvda[f"kronos_{metric}"] == nvda[f"kronos_chosen_{metric}"]
        assert nvda[f"toto_{metric}"] == nvda[f"toto_adapter_{metric}"]
    assert nvda["kronos_mae"] != nvda["kronos_adapter_mae"]
    assert nvda["kronos_latency"] == record["latency_s"]["kronos.chosen"]
    assert nvda["kronos_latency_p95"] == record["latency_p95_s"]["kronos.chosen"]
    assert nvda["auto_ets_latency_p95"] == record["latency_p95_s"]["auto_ets"]


def test_a_baseline_that_wins_has_its_own_improvement() -> None:
    record = compared_record("NVDA", ALL, winner="drift")
    (file,) = comparison_summary("2023-08", [record]).values()
    assert file["wins"] == {"drift": 1}
    improvement = file["results"]["NVDA"]["improvement_pct"]
    assert improvement == 100 * score(record, "drift", "plan", "skill")
    lost = comparison_summary("2023-08", [compared_record("NVDA", ALL, winner="naive")])[16]
    assert lost["results"]["NVDA"]["improvement_pct"] == 0


def test_a_skill_that_does_not_exist_is_null() -> None:
    record = compared_record("A", ONE, winner="kronos.chosen")
    for row in record["scores"]:
        row["skill"] = None
    result = comparison_summary("2023-08", [record])[16]["results"]["A"]
    assert result["naive_skill"] is None
    assert result["improvement_pct"] is None


def test_a_score_that_an_older_record_lacks_is_null() -> None:
    older = copy.deepcopy(compared_record("A", ONE))
    for row in older["scores"]:
        del row["crps"]
    (file,) = comparison_summary("2023-08", [older, compared_record("B", ONE)]).values()
    assert file["results"]["A"]["kronos_crps"] is None
    assert file["results"]["B"]["kronos_crps"] > 0


def test_a_stock_that_failed_takes_the_place_of_its_older_record() -> None:
    records = [compared_record("NVDA"), compared_record("AAPL")]
    assert comparison_summary("2023-08", [], failed={"SPY": "x"}) == {}
    file = comparison_summary("2023-08", records, failed={"AAPL": "x"})[16]
    assert file["results"]["AAPL"]["error"] == "x"
    assert file["total_stocks"] == len(file["results"]) == 2
    assert file["wins"] == {"tie": 1, "none": 1}
    assert file["pooled"]["kronos.chosen"]["stocks"] == 1
    only = comparison_summary("2023-08", records[:1], failed={"NVDA": "x"})[16]
    assert only["wins"] == {"none": 1}
    assert "pooled" not in only


def test_earlier_months_are_pooled_to_date() -> None:
    earlier = [compared_record("NVDA", month="2023-07"), compared_record("AAPL", month="2023-07")]
    file = comparison_summary("2023-08", [compared_record("NVDA")], earlier=earlier)[16]
    assert list(file["by_month"]) == ["2023-07", "2023-08"]
    assert file["pooled"]["kronos.chosen"]["origins"] == 3
    assert file["pooled_to_date"]["kronos.chosen"]["origins"] == 9
    assert file["total_stocks"] == 1
