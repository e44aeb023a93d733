"""Who got worse: like compared with like, the adjustment over stocks, reasons, odd inputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.regression import StockFacts, regression_analysis
from retrain_assets.training.losses import NEGLIGIBLE
from retrain_assets_tests.evaluation.judged import (
    CLOSE,
    MONTH,
    ORIGINS,
    adapter,
    champion,
    comparison,
    confirmation,
    losses,
    version,
)

WORSE_THAN_BOTH = {"kronos.adapter": 2.2, "kronos.last_month": 2.0, "kronos.zero_shot": 1.9}
NO_WORSE = {"kronos.adapter": 2.0, "kronos.last_month": 2.0, "kronos.zero_shot": 2.1}


def analysed(*stocks: StockFacts, level: float = 0.05) -> dict[str, Any]:
    found = regression_analysis(MONTH, stocks, level=level)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def rows(*stocks: StockFacts) -> list[tuple[str, str, str]]:
    found = analysed(*stocks)["regressions"]
    return [(row["symbol"], row["against"], row["status"]) for row in found]


def reasons(stock: StockFacts, against: str = "last_month") -> list[str]:
    found = analysed(stock)["regressions"]
    (row,) = [row for row in found if row["against"] == against]
    return list(row["reasons"])


def test_errors_are_in_percent_of_the_close_on_the_same_origins() -> None:
    stock = StockFacts("NVDA", comparison(WORSE_THAN_BOTH, dict.fromkeys(WORSE_THAN_BOTH, 3.0)))
    against_base, against_last = analysed(stock)["regressions"]
    assert against_base["against"] == "zero_shot", "the largest comes first"
    expected = {"baseline_mae_pct": 4.0, "optimized_mae_pct": 4.4, "regression_pct": 0.4}
    assert {name: against_last[name] for name in expected} == pytest.approx(expected)
    assert against_last["regression_relative_pct"] == pytest.approx(10.0)
    assert against_last["test_mae_pct"] == pytest.approx(
        {"baseline": 6.0, "optimized": 6.0, "origins": 3}
    )
    named = {"family": "kronos", "best_model": "kronos.adapter", "horizon": 7, "origins": ORIGINS}
    assert {name: against_last[name] for name in named} == named
    assert against_last["promoted"] is None


def test_each_origin_is_weighed_by_its_own_close() -> None:
    record = comparison(WORSE_THAN_BOTH)
    table = record["losses"]["selection"]
    table["origin_close"] = np.linspace(10, 90, ORIGINS).tolist()
    expected = 100 * np.mean(np.array(table["kronos.adapter"]) / table["origin_close"])
    (row, _) = analysed(StockFacts("NVDA", record))["regressions"]
    assert row["optimized_mae_pct"] == pytest.approx(expected)


def test_the_test_is_one_sided_and_paired() -> None:
    record = comparison({"kronos.adapter": 2.2, "kronos.last_month": 2.0}, sure=False)
    table = record["losses"]["selection"]
    lag = np.subtract(table["kronos.adapter"], table["kronos.last_month"]) / CLOSE
    expected = DescrStatsW(lag).ttest_mean(0.0, alternative="larger")[1]
    (row,) = analysed(StockFacts("NVDA", record), level=0.2)["regressions"]
    assert row["p_value"] == pytest.approx(expected)
    assert row["p_holm"] == row["p_value"]
    better = comparison({"kronos.adapter": 1.8, "kronos.last_month": 2.0})
    assert rows(StockFacts("NVDA", better)) == []


def test_p_values_are_adjusted_over_the_stocks_of_the_same_rival() -> None:
    clear = comparison(WORSE_THAN_BOTH, sure=False)
    alone = {row["against"]: row for row in analysed(StockFacts("AAA", clear))["regressions"]}
    crowd = [
        StockFacts(f"S{i}", comparison({"kronos.adapter": 2.0, "kronos.last_month": 2.0}))
        for i in range(4)
    ]
    many = analysed(StockFacts("AAA", clear), *crowd)["regressions"]
    together = {row["against"]: row for row in many if row["symbol"] == "AAA"}
    for rival, factor in (("last_month", 5), ("zero_shot", 1)):
        assert together[rival]["p_value"] == alone[rival]["p_value"]
        assert together[rival]["p_holm"] == pytest.approx(factor * alone[rival]["p_value"])


def test_what_is_worse_without_certainty_is_suspect_only_if_the_test_agrees() -> None:
    noisy = {"kronos.adapter": 2.02, "kronos.last_month": 2.0}
    agreeing = comparison(noisy, sure=False)
    denying = comparison(noisy, {"kronos.adapter": 1.9, "kronos.last_month": 2.0}, sure=False)
    assert rows(StockFacts("A", agreeing)) == [("A", "last_month", "suspect")]
    assert rows(StockFacts("A", denying)) == []
    sure = comparison({"kronos.adapter": 2.2, "kronos.last_month": 2.0}, noisy | {"x.y": 9.0})
    sure["losses"]["test"]["kronos.adapter"] = [0.0, 0.0, 0.0]
    assert rows(StockFacts("A", sure)) == [("A", "last_month", "worse")], "no veto by the test"
    summary = analysed(StockFacts("A", agreeing))["summary"]
    assert (summary["total_regressions"], summary["total_suspects"]) == (0, 1)
    assert summary["avg_regression_pct"] is None


def test_a_difference_that_means_nothing_is_none_however_sure() -> None:
    for more, expected in ((NEGLIGIBLE / 2, []), (NEGLIGIBLE * 3, ["worse"])):
        record = comparison({"kronos.adapter": 2.0, "kronos.last_month": 2.0})
        table = record["losses"]["selection"]
        base = np.array(table["kronos.last_month"])
        table["kronos.adapter"] = (base * (1 + more)).tolist()
        assert [status for _, _, status in rows(StockFacts("A", record))] == expected


def test_the_incumbent_is_compared_in_the_champions_own_table() -> None:
    decided = champion({"kronos.candidate": 2.4, "kronos.incumbent": 2.0}, promote=True)
    record = comparison(NO_WORSE)
    (row,) = analysed(StockFacts("A", record, champion=decided))["regressions"]
    assert (row["against"], row["best_model"], row["promoted"]) == (
        "incumbent",
        "kronos.adapter",
        True,
    )
    assert row["regression_relative_pct"] == pytest.approx(20.0)
    (alone,) = analysed(StockFacts("A", champion=decided))["regressions"]
    assert (alone["best_model"], alone["horizon"]) == ("kronos.candidate", None)


def test_rivals_that_err_alike_are_one() -> None:
    record = comparison(WORSE_THAN_BOTH)
    table = record["losses"]["selection"]
    decided = champion({"kronos.candidate": 2.2, "kronos.incumbent": 2.0})
    for column, source in (("candidate", "adapter"), ("incumbent", "last_month")):
        # As written by way of relative losses: not to the last bit the same.
        values = np.array(table[f"kronos.{source}"]) / 3 * 3
        decided["losses"]["selection"][f"kronos.{column}"] = values.tolist()
    found = analysed(StockFacts("A", record, champion=decided))
    assert found["summary"]["comparisons"] == 2
    last = found["regressions"][-1]
    assert (last["against"], last["same_as"]) == ("incumbent", ["last_month"])
    other = champion({"kronos.candidate": 2.2, "kronos.incumbent": 2.1})
    assert analysed(StockFacts("A", record, champion=other))["summary"]["comparisons"] == 3


def test_a_longer_holdout_stands_beside_the_rival_it_is_about() -> None:
    stock = StockFacts("A", comparison(WORSE_THAN_BOTH), confirmation=confirmation(3.1))
    found = {row["against"]: row["confirmation"] for row in analysed(stock)["regressions"]}
    expected = {"holdout_days": 28, "origins": 4, "change_pct": 3.1, "p_value": None}
    assert found == {"last_month": expected, "zero_shot": None}


def test_families_are_judged_apart() -> None:
    record = comparison(
        {"kronos.adapter": 2.2, "kronos.last_month": 2.0, "toto.adapter": 2.0, "toto.last_month": 2}
    )
    (row,) = analysed(StockFacts("A", record))["regressions"]
    assert row["family"] == "kronos"


def test_the_order_of_the_stocks_does_not_matter() -> None:
    stocks = [StockFacts(s, comparison(WORSE_THAN_BOTH, sure=False)) for s in ("B", "A", "C")]
    stocks.append(StockFacts("D", failures={"kronos_adapter": "x"}))
    assert analysed(*stocks) == analysed(*reversed(stocks))


def test_what_could_not_be_judged_is_listed_in_full() -> None:
    error = "line one\n" + 300 * "x"
    found = analysed(
        StockFacts("B", failures={"toto_adapter": error, "kronos_adapter": "y"}),
        StockFacts("A", missing=("champion", "comparison"), stale={"kronos_params": "new bars"}),
        StockFacts("C", vanished="no bars of this month"),
    )
    assert found["failures"] == [
        {"symbol": "B", "asset": "kronos_adapter", "error": "y"},
        {"symbol": "B", "asset": "toto_adapter", "error": error},
    ]
    assert found["missing"] == [{"symbol": "A", "assets": ["champion", "comparison"]}]
    assert found["stale"] == [{"symbol": "A", "asset": "kronos_params", "why": "new bars"}]
    assert found["vanished"] == [{"symbol": "C", "why": "no bars of this month"}]
    assert found["summary"]["total_failures"] == 2


def test_a_month_without_any_comparison_is_stated() -> None:
    for stocks in ((), (StockFacts("A"),), (StockFacts("A", {"bars": 500}),)):
        summary = analysed(*stocks)["summary"]
        assert summary["note"].startswith("nothing was compared")
        assert summary["not_compared"] == [stock.symbol for stock in stocks]
    undecided = {"families": {"kronos": {"candidate": None}}, "losses": {}}
    assert analysed(StockFacts("A", champion=undecided))["summary"]["comparisons"] == 0
    judged = analysed(StockFacts("A", comparison(NO_WORSE)), StockFacts("B"))["summary"]
    assert (judged["note"], judged["not_compared"]) == (None, ["B"])
    assert (judged["stocks"], judged["stocks_compared"], judged["comparisons"]) == (2, 1, 2)


@pytest.mark.parametrize("broken", [[1.0], [None] * ORIGINS])
def test_a_record_that_cannot_be_read_is_a_failure_of_its_stock(broken: list[Any]) -> None:
    record = comparison(WORSE_THAN_BOTH)
    record["losses"]["selection"]["kronos.adapter"] = broken
    found = analysed(StockFacts("A", record), StockFacts("B", comparison(WORSE_THAN_BOTH)))
    assert [(f["symbol"], f["asset"]) for f in found["failures"]] == [("A", "comparison")]
    assert "compare the month again" in found["failures"][0]["error"]
    assert {row["symbol"] for row in found["regressions"]} == {"B"}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadInput, match="twice among A, A"):
        analysed(StockFacts("A"), StockFacts("A"))
    with pytest.raises(BadInput, match="level is 5"):
        analysed(StockFacts("A"), level=5)
    with pytest.raises(BadInput, match="no usable symbol"):
        StockFacts("A; rm")


def test_on_equal_footing_few_are_called_worse() -> None:
    """Candidate and rival drawn alike, 20 stocks a month: at 5 % one month in twenty errs."""
    rng, found = np.random.default_rng(0), []
    for _ in range(10):
        stocks = []
        for i in range(20):
            record = comparison({"kronos.adapter": 2.0, "kronos.last_month": 2.0})
            for segment, count in (("selection", ORIGINS), ("test", 3)):
                for name in ("adapter", "last_month"):
                    table = record["losses"][segment]
                    table[f"kronos.{name}"] = rng.gamma(4, 0.5, count).tolist()
            stocks.append(StockFacts(f"S{i}", record))
        found.append(regression_analysis(MONTH, stocks)["summary"])
    assert sum(month["total_regressions"] > 0 for month in found) <= 1
    assert np.mean([month["total_suspects"] for month in found]) == pytest.approx(5, abs=1.5)


def test_nothing_to_tell_gives_no_reasons() -> None:
    stock = StockFacts("A", comparison(WORSE_THAN_BOTH | {"kronos.zero_shot": 2.2}))
    assert reasons(stock) == []


def test_what_changed_since_last_month_is_told_against_rivals_of_then() -> None:
    record = comparison(WORSE_THAN_BOTH, bars=2600)
    record["last_month"]["kronos"] = version("kronos", base="mini", fingerprint="2" * 64)
    stock = StockFacts(
        "A",
        record,
        {"bars": 2685},
        volatility_pct=3.1,
        earlier_volatility_pct=2.0,
        odd_bars=("volume is 0 in 12 rows",),
    )
    told = reasons(stock)
    assert told[0] == "fewer bars than last month: 2600, then 2685"
    assert told[1] == "another volatility: 3.10 % a day, 2.00 % last month"
    assert told[2] == "another base: small (11111111), then mini (22222222)"
    assert told[3] == "odd bars: volume is 0 in 12 rows"
    assert reasons(stock, "zero_shot") == ["odd bars: volume is 0 in 12 rows"]


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [(3.0, 2.0, False), (3.1, 2.0, True), (2.0, 3.0, False), (1.9, 3.0, True), (None, 2.0, False)],
)
def test_a_regime_is_another_beyond_half_as_much_again(
    now: float | None, before: float, told: bool
) -> None:
    record = comparison({"kronos.adapter": 2.2, "kronos.last_month": 2.0})
    stock = StockFacts("A", record, volatility_pct=now, earlier_volatility_pct=before)
    assert bool(reasons(stock)) == told


@pytest.mark.parametrize(
    ("best_epoch", "told"),
    [
        (0, "training brought nothing: none of 6 epochs lowered the validation loss"),
        (1, "training was at its best after the first of 6 epochs"),
        (2, None),
    ],
)
def test_an_early_stop_is_told_of_the_candidates_own_adapter(
    best_epoch: int, told: str | None
) -> None:
    worse = {"kronos.adapter": 2.2, "kronos.last_month": 2.0}
    trained = adapter({}, best_epoch=best_epoch, epochs=6)
    policy = {"kronos": adapter({}, best_epoch=0, epochs=9)}
    stock = StockFacts("A", comparison(worse, trained=trained), adapters=policy)
    assert reasons(stock) == ([told] if told else [])
    assert "none of 9" in reasons(StockFacts("A", comparison(worse), adapters=policy))[0]


def test_an_adapter_worse_than_its_base_is_told_where_that_explains_something() -> None:
    told = ["the adapter errs 15.8 % more than its base with the same settings"]
    stock = StockFacts("A", comparison(WORSE_THAN_BOTH))
    assert reasons(stock) == told
    assert reasons(stock, "zero_shot") == [], "it would only repeat itself"
    searched = comparison(WORSE_THAN_BOTH | {"kronos.chosen": 2.1})
    assert reasons(StockFacts("A", searched), "zero_shot") == told


def test_few_origins_are_told() -> None:
    record = comparison({"kronos.adapter": 2.2, "kronos.last_month": 2.0}, origins=20)
    (told,) = reasons(StockFacts("A", record))
    assert told.startswith("only 20 selection origins instead of 26")


def test_settings_chosen_without_gain_are_told() -> None:
    means = {"kronos.adapter": 2.2, "kronos.last_month": 2.0}
    settings = {"temperature": 0.7, "top_k": None}
    idle = comparison(means | {"kronos.chosen": 2.2}, settings=settings)
    (told,) = reasons(StockFacts("A", idle))
    assert (
        told == "other settings than the published ones, without gain: temperature 0.7, top_k off"
    )
    gaining = comparison(means | {"kronos.chosen": 2.15}, settings=settings)
    assert reasons(StockFacts("A", gaining)) == []
    same = comparison(means | {"kronos.chosen": 2.2}, settings={"temperature": 1.0})
    assert reasons(StockFacts("A", same)) == []


def test_the_tables_of_these_tests_are_what_they_say() -> None:
    table = losses({"a": 3.0}, ORIGINS, sure=False)
    assert np.mean(table["a"]) == pytest.approx(3.0)
    assert min(table["a"]) > 0
