"""What is recommended: commands, run configurations, their order, and when there is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from retrain_assets.evaluation.regression import StockFacts, regression_analysis
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.ladder import RungResult
from retrain_assets.training.policy import plan
from retrain_assets_tests.evaluation.judged import MONTH, adapter, comparison, confirmation

PLAN = plan(1707, 20.0, "kronos", ModelLimits(max_context=4096))
POLICY_ONLY = {"kronos": adapter(PLAN.to_json())}
WORSE = {"kronos.adapter": 2.2, "kronos.last_month": 2.0}
SUSPECT = {"kronos.adapter": 2.02, "kronos.last_month": 2.0}


def worse(symbol: str, by: float = 0.2, **facts: Any) -> StockFacts:
    record = comparison({"kronos.adapter": 2.0 + by, "kronos.last_month": 2.0})
    return StockFacts(symbol, record, **({"adapters": POLICY_ONLY} | facts))


def suspect(symbol: str, **facts: Any) -> StockFacts:
    return StockFacts(symbol, comparison(SUSPECT, sure=False), **facts)


def advised(*stocks: StockFacts) -> list[dict[str, Any]]:
    return list(regression_analysis(MONTH, stocks)["recommendations"])


def test_what_failed_is_missing_or_stale_is_run_for_its_family() -> None:
    facts: list[dict[str, Any]] = [
        {"failures": {"kronos_adapter": "diverged"}},
        {"missing": ("kronos_params",)},
        {"stale": {"kronos_params": "another adapter"}},
    ]
    for fact in facts:
        (row,) = advised(StockFacts("NVDA", **fact))
        assert row["command"] == "retrain run --stocks NVDA --month 2023-08 --model-type kronos"
        assert (row["action"], row["family"], row["run_config"]) == ("run", "kronos", {})
    assert row["reason"] == "kronos_params is stale: another adapter"


def test_what_belongs_to_no_family_is_run_for_all_at_once() -> None:
    stock = StockFacts("NVDA", failures={"kronos_adapter": "x"}, missing=("comparison",))
    (row,) = advised(stock)
    assert row["command"] == "retrain run --stocks NVDA --month 2023-08"
    assert row["family"] is None
    assert "kronos_adapter failed" in row["reason"]
    assert "comparison is missing" in row["reason"]
    both = advised(StockFacts("NVDA", missing=("kronos_adapter", "toto_adapter")))
    assert [row["family"] for row in both] == ["kronos", "toto"]


def test_what_is_worse_climbs_the_next_rung_of_its_ladder() -> None:
    (row,) = advised(worse("TSLA"))
    assert row["command"] == "retrain refine --stocks TSLA --month 2023-08 --model-type kronos"
    assert row["run_config"] == {"ops": {"kronos_refined": {"config": {"rungs": 1}}}}
    assert row["rung"] == "loss_huber"
    assert "errs 10.0 % more than last_month" in row["reason"]
    assert "loss heteroscedastic -> huber" in row["reason"]
    done = [RungResult("policy", 1.1), RungResult("loss_huber", 1.0)]
    (further,) = advised(worse("TSLA", rungs={"kronos": done}))
    assert further["rung"] == "half_rate"


def test_when_the_ladder_is_over_only_a_statement_is_left() -> None:
    done = [RungResult(name, 1.0) for name in ("policy", "loss_huber", "half_rate")]
    found = regression_analysis(MONTH, [worse("TSLA", rungs={"kronos": done})])
    (row,) = found["recommendations"]
    assert (row["action"], row["command"], row["run_config"]) == ("none", None, None)
    assert "the ladder is over: loss_huber and half_rate" in row["reason"]
    assert found["commands"] == []


def test_a_ladder_that_cannot_be_followed_is_told_not_hidden() -> None:
    foreign = [RungResult("policy", 1.0), RungResult("rank_24", 1.0)]
    (row,) = advised(worse("TSLA", rungs={"kronos": foreign}))
    assert (row["action"], row["rung"]) == ("refine", None)
    assert "rank_24" in row["reason"]
    (unknown,) = advised(worse("TSLA", adapters={}))
    assert (unknown["action"], unknown["rung"]) == ("refine", None)


def test_a_suspect_is_looked_at_with_a_longer_holdout() -> None:
    (row,) = advised(suspect("SPY"))
    assert row["command"] == "retrain analyze --stocks SPY --month 2023-08 --holdout-days 28"
    assert row["run_config"] == {"ops": {"confirmation": {"config": {"holdout_days": 28}}}}


@pytest.mark.parametrize(
    ("horizon", "days", "expected"), [(64, 10, 40), (64, 7, 28), (32, 10, 40), (20, 7, None)]
)
def test_a_longer_holdout_ends_where_the_choices_begin(
    horizon: int, days: int, expected: int | None
) -> None:
    record = comparison(SUSPECT, sure=False) | {"plan_horizon": horizon, "holdout_days": days}
    (row,) = advised(StockFacts("SPY", record))
    if expected is None:
        assert (row["action"], row["command"]) == ("none", None)
        assert "no longer holdout" in row["reason"]
    else:
        assert row["command"].endswith(f"--holdout-days {expected}")


def test_a_longer_holdout_settles_a_suspicion() -> None:
    (chance,) = advised(suspect("SPY", confirmation=confirmation(-0.4)))
    assert (chance["action"], chance["command"]) == ("none", None)
    assert chance["reason"].endswith("over 28 sessions -0.4 %")
    (true,) = advised(suspect("SPY", confirmation=confirmation(3.1), adapters=POLICY_ONLY))
    assert (true["action"], true["rung"]) == ("refine", "loss_huber")
    assert "over 28 sessions +3.1 %" in true["reason"]
    (shorter,) = advised(suspect("SPY", confirmation=confirmation(3.1, sessions=21)))
    assert shorter["action"] == "analyze"


def test_what_is_no_part_of_a_run_is_not_run_again() -> None:
    lost = {"kronos_refined": "diverged", "confirmation": "no bars"}
    assert advised(StockFacts("A", failures=lost, stale={"confirmation": "other bars"})) == []
    (row,) = advised(worse("A", failures=lost))
    assert row["action"] == "refine"


def test_the_most_urgent_comes_first_and_stands_alone() -> None:
    found = regression_analysis(
        MONTH,
        [
            suspect("AA"),
            worse("BB", 0.2),
            worse("CC", 0.4),
            worse("DD", stale={"comparison": "new bars"}),
            worse("EE", failures={"toto_adapter": "x"}),
            StockFacts("FF", vanished="no bars of this month", missing=("market_bars",)),
            StockFacts("GG", missing=("kronos_adapter",)),
        ],
    )
    order = [(row["symbol"], row["action"]) for row in found["recommendations"]]
    assert order == [
        ("EE", "run"),
        ("GG", "run"),
        ("DD", "run"),
        ("CC", "refine"),
        ("BB", "refine"),
        ("EE", "refine"),
        ("AA", "analyze"),
        ("FF", "none"),
    ]
    assert found["recommendations"][-1]["reason"] == "no bars of this month"
    assert found["commands"] == [
        "retrain run --stocks EE --month 2023-08 --model-type toto",
        "retrain run --stocks GG --month 2023-08 --model-type kronos",
        "retrain run --stocks DD --month 2023-08",
        "retrain refine --stocks CC BB EE --month 2023-08 --model-type kronos",
        "retrain analyze --stocks AA --month 2023-08 --holdout-days 28",
    ]


def test_worse_than_one_rival_and_suspect_against_another_is_refined_once() -> None:
    record = comparison({"kronos.adapter": 2.2, "kronos.last_month": 2.0, "kronos.zero_shot": 2.1})
    table = record["losses"]["selection"]
    noise = [0.5 * (-1) ** i for i in range(len(table["naive"]))]
    noisy = [x + y for x, y in zip(table["kronos.zero_shot"], noise, strict=True)]
    table["kronos.zero_shot"] = noisy
    stock = StockFacts("A", record, adapters=POLICY_ONLY)
    found = regression_analysis(MONTH, [stock])
    assert {row["status"] for row in found["regressions"]} == {"worse", "suspect"}
    assert [row["action"] for row in found["recommendations"]] == ["refine"]
