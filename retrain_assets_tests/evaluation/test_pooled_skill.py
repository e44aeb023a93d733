"""What stocks and months say together: hand-computed pools, and what stays out of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.pooled_skill import (
    LEVELS,
    month_statistics,
    pooled_losses,
    pooled_skill,
    pooled_skills,
    skill_over_months,
)
from retrain_assets.evaluation.stock_record import StockRecord
from retrain_assets_tests.evaluation.records import loss_record

ENTRY = {
    *("skill", "skill_low", "skill_high", "p_value", "p_adjusted"),
    *("months", "stocks", "origins"),
}


def history(months: int, stocks: int = 3, *, better: float = 0.0) -> list[StockRecord]:
    """Months of stocks at different prices, in which x errs less than naive by about a share."""
    records = []
    for month in range(months):
        draw = np.random.default_rng(month)
        for stock in range(stocks):
            close = 10.0 ** (stock + 1)
            naive = close * draw.uniform(0.02, 0.04, 3)
            x = naive * (1 - better + draw.normal(0, 0.05, 3))
            losses = {"naive": naive.tolist(), "x": x.tolist()}
            records.append(loss_record(f"S{stock}", f"2023-{month + 1:02d}", losses, close=close))
    return records


def test_the_dearest_stock_does_not_decide() -> None:
    records = [
        loss_record("CHEAP", "2023-08", {"naive": [0.2], "x": [0.1]}, close=10),
        loss_record("DEAR", "2023-08", {"naive": [10.0], "x": [20.0]}, close=1000),
    ]
    losses = pooled_losses(records)
    assert list(losses.index.names) == LEVELS
    assert losses.columns.name == "candidate"
    assert losses["x"].tolist() == [0.01, 0.02]
    assert pooled_skills(losses)["x"]["skill"] == pytest.approx(1 - 0.03 / 0.03)


def test_one_month_has_a_skill_but_neither_interval_nor_p() -> None:
    statistics = month_statistics(history(1, 40))
    found = statistics["pooled"]["x"]
    assert set(found) == ENTRY
    assert (found["months"], found["stocks"], found["origins"]) == (1, 40, 120)
    assert found["skill"] is not None
    assert {found[key] for key in ENTRY if key.startswith(("p_", "skill_"))} == {None}
    assert statistics["pooled_to_date"] == statistics["pooled"]
    assert "one observation" in statistics["notes"][0]
    assert "naive" not in statistics["pooled"]


def test_six_months_have_both() -> None:
    records = history(6, better=0.2)
    statistics = month_statistics(records[-3:], records[:-3])
    found = statistics["pooled_to_date"]["x"]
    assert found["skill_low"] < found["skill"] < found["skill_high"]
    assert found["skill_low"] > 0.1
    assert found["p_value"] < 0.01
    assert found["p_adjusted"] == found["p_value"], "there is one candidate"
    assert (found["months"], found["stocks"], found["origins"]) == (6, 3, 54)
    assert list(statistics["by_month"]) == [f"2023-{m:02d}" for m in range(1, 7)]
    assert statistics["by_month"]["2023-06"] == statistics["pooled"]
    assert statistics == month_statistics(records[-3:], records[:-3]), "to the bit"
    json.dumps(statistics, allow_nan=False)


def test_a_month_counts_once_however_many_stocks_move_together() -> None:
    alone = pooled_skills(pooled_losses(history(6, 1)))["x"]
    twins = [{**r, "symbol": f"T{i}"} for r in history(6, 1) for i in range(20)]
    many = pooled_skills(pooled_losses(twins))["x"]  # type: ignore[arg-type]  # records with another symbol
    assert many["origins"] == 20 * alone["origins"]
    for key in ("skill", "skill_low", "skill_high", "p_value"):
        assert many[key] == pytest.approx(alone[key])


def test_what_is_not_of_an_earlier_final_month_stays_out() -> None:
    now = history(2)[-3:]
    losses = {"naive": [1.0], "x": [0.0]}
    out = [
        loss_record("LATE", "2023-03", losses),
        loss_record("OPEN", "2023-01", losses, provisional=True),
        loss_record("LONG", "2023-01", losses, holdout_days=10),
    ]
    clean = month_statistics(now, history(1))
    got = month_statistics(now, [*out, *history(1)])
    for key in ("pooled", "pooled_to_date", "by_month", "by_difficulty"):
        assert got[key] == clean[key], key
    assert got["notes"] == [
        *clean["notes"],
        "records of earlier months left out: 1 provisional, 1 of forecasts of another length",
    ]


def test_a_stocks_month_counts_once_and_the_last_of_it() -> None:
    old = loss_record("A", "2023-07", {"naive": [1.0], "x": [9.0]})
    new = loss_record("A", "2023-07", {"naive": [1.0], "x": [0.5]})
    now = loss_record("A", "2023-08", {"naive": [1.0], "x": [0.5]})
    stale = loss_record("A", "2023-08", {"naive": [1.0], "x": [9.0]})
    found = month_statistics([now], [old, stale, new])["pooled_to_date"]["x"]
    assert (found["skill"], found["origins"]) == (0.5, 2)


def test_a_candidate_is_pooled_over_the_stocks_that_have_it() -> None:
    records = [
        loss_record("A", "2023-08", {"naive": [1.0], "x": [0.5], "y": [0.25]}),
        loss_record("B", "2023-08", {"naive": [3.0], "x": [1.5]}),
    ]
    found = month_statistics(records)["pooled"]
    assert (found["x"]["skill"], found["x"]["stocks"]) == (0.5, 2)
    assert (found["y"]["skill"], found["y"]["stocks"]) == (0.75, 1)


def test_difficulties_are_pooled_apart() -> None:
    records = [
        loss_record("A", "2023-08", {"naive": [1.0], "x": [0.5]}, difficulty="hard"),
        loss_record("B", "2023-08", {"naive": [1.0], "x": [0.75]}, difficulty="easy"),
    ]
    before = loss_record("A", "2023-07", {"naive": [1.0], "x": [1.0]}, difficulty="hard")
    found = month_statistics(records, [before])["by_difficulty"]
    assert list(found) == ["easy", "hard"]
    assert found["hard"]["month"]["x"]["skill"] == 0.5
    assert found["hard"]["to_date"]["x"]["skill"] == 0.25
    assert found["easy"]["to_date"]["x"]["skill"] == 0.25
    quiet = month_statistics(records[1:], [before])["by_difficulty"]
    assert quiet["hard"]["month"] == {}, "no hard stock this month"


def test_p_values_are_adjusted_over_stocks_and_over_candidates() -> None:
    losses = {"naive": [1.0], "x": [0.5]}
    records = [
        loss_record("A", "2023-08", losses, p_values={"x": 0.01, "y": 0.5}),
        loss_record("B", "2023-08", losses, p_values={"x": 0.04}),
    ]
    found = month_statistics(records)["holm"]
    assert found["x"] == pytest.approx({"A": 0.02, "B": 0.04})
    assert found["y"] == {"A": 0.5}
    twins = history(6, better=0.2)
    for record in twins:
        record["losses"]["test"]["y"] = record["losses"]["test"]["x"]
    pooled = pooled_skills(pooled_losses(twins))
    assert pooled["x"]["p_adjusted"] == pytest.approx(2 * pooled["x"]["p_value"])


def test_one_candidate_over_another_on_the_origins_of_both() -> None:
    records = [
        loss_record("A", "2023-08", {"naive": [1.0], "x": [0.5], "y": [0.25]}),
        loss_record("B", "2023-08", {"naive": [3.0], "x": [1.5]}),
    ]
    found = pooled_skill(pooled_losses(records), "y", against="x")
    assert (found["skill"], found["origins"]) == (0.5, 1)


def test_a_first_month_that_is_not_over_has_nothing_to_date() -> None:
    record = loss_record("A", "2023-08", {"naive": [1.0], "x": [0.5]}, provisional=True)
    found = month_statistics([record])
    assert found["pooled"]["x"]["skill"] == 0.5
    assert found["pooled_to_date"] == {}


def test_skill_goes_on_from_month_to_month() -> None:
    *before, last, other, new = history(8)
    new["losses"]["test"]["y"] = new["losses"]["test"]["x"]
    running = loss_record("A", "2023-07", {"naive": [1.0], "x": [9.0]}, provisional=True)
    found = skill_over_months([last, other, new], [*before, running], ["x", "y", "z"])
    assert [entry["month"] for entry in found["x"]] == [f"2023-{n:02d}" for n in range(1, 9)]
    for entry in (found["x"][0], found["x"][6]):
        records = [one for one in before if one["month"] <= entry["month"]]
        assert entry["to_date"] == pooled_skill(pooled_losses(records), "x")
        alone = [one for one in records if one["month"] == entry["month"]]
        assert entry["skill"] == pooled_skill(pooled_losses(alone), "x")["skill"]
    assert found["x"][-1]["to_date"]["months"] == 8
    assert [entry["month"] for entry in found["y"]] == ["2023-08"]
    assert "z" not in found
    assert skill_over_months([running], [], ["x"]) == {}


def test_a_record_without_losses_is_refused_by_name() -> None:
    record = loss_record("A", "2023-08", {"naive": [1.0]})
    record["losses"] = {}
    with pytest.raises(BadInput, match="comparison of A 2023-08 has no losses"):
        pooled_losses([record])
