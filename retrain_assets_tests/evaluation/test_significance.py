"""The Diebold-Mariano test, the winner rule, and what chance alone is allowed to win."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from retrain_assets.evaluation.comparison import compare
from retrain_assets.evaluation.significance import (
    Verdict,
    against_naive,
    diebold_mariano,
    holm,
    origin_losses,
    pooled_test,
    winner,
)
from retrain_assets.models.forecaster import Window
from retrain_assets_tests.evaluation.forecasters import (
    PathOf,
    bars_of,
    candidate,
    drift,
    naive,
    random_walk,
    split_of,
)


def forecasts(selection: dict[str, np.ndarray], test: dict[str, float]) -> pd.DataFrame:
    """A table of one-step forecasts that err by these losses, 20 origins and one."""
    parts = []
    for segment, losses in (("selection", selection), ("test", test)):
        table = pd.DataFrame({name: 100 + np.atleast_1d(loss) for name, loss in losses.items()})
        table["cutoff"] = pd.bdate_range("2024-01-01", periods=len(table))
        parts.append(table.assign(unique_id="A", segment=segment, scope="holdout", y=100.0))
    return pd.concat(parts, ignore_index=True)


def noise(seed: int, n: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.9, 1.1, n)


def test_without_lags_the_test_is_the_t_test_of_the_differences() -> None:
    first, second = noise(0), noise(1) + 0.05
    statistic, p_value, _ = DescrStatsW(first - second).ttest_mean(0.0)
    got = diebold_mariano(first, second)
    assert got.statistic == pytest.approx(statistic)
    assert got.p_value == pytest.approx(p_value)
    assert got.statistic < 0, "the first has the smaller loss"
    assert diebold_mariano(first, first) == (0.0, 1.0)


@pytest.mark.parametrize("n", [8, 26])
def test_a_true_null_is_rejected_as_often_as_stated(n: int) -> None:
    rng = np.random.default_rng(5)
    draws = np.abs(rng.normal(size=(600, 2, n)))
    rejected = np.mean([diebold_mariano(a, b).p_value < 0.05 for a, b in draws])
    assert 0.025 < rejected < 0.08


def test_p_values_are_adjusted_for_the_number_of_candidates() -> None:
    losses = pd.DataFrame({"naive": noise(0), "a": noise(1) - 0.04, "b": noise(2)})
    alone = against_naive(losses[["naive", "a"]])["a"]
    both = against_naive(losses)
    assert both["a"] == pytest.approx(2 * alone)
    assert both["b"] >= both["a"]
    twins = against_naive(losses.assign(b=losses["a"]))
    assert twins["a"] == twins["b"] == both["a"], "the smallest p counts twice for both"
    assert against_naive(losses[["naive"]]) == {}


def test_losses_are_means_over_the_steps_of_an_origin() -> None:
    bars, split = random_walk(600, 0), split_of(600)
    table = compare(bars, split, [naive(64)], symbol="A", seed=0).forecasts
    losses = origin_losses(table, ["naive"], segment="selection")
    assert len(losses) == 26
    close = bars["close"].to_numpy()
    origin = split.holdout_origins("selection")[3]
    expected = np.abs(close[origin + 1 : origin + 8] - close[origin]).mean()
    assert losses["naive"].iloc[3] == pytest.approx(expected)
    assert len(origin_losses(table, ["naive"], segment="test", scope="plan")) == 8


def judge(
    shifts: dict[str, float], test: dict[str, float], searched: dict[str, float] | None = None
) -> Verdict:
    """Verdict on candidates whose selection losses are naive's plus a shift and noise."""
    base = noise(0) + 1
    selection = {"naive": base}
    for seed, (name, shift) in enumerate(shifts.items()):
        selection[name] = base + shift + 0.1 * noise(seed + 1) - 0.1
    table = forecasts(selection, {"naive": 1.0} | test)
    return winner(table, list(selection), searched=searched)


def test_a_candidate_wins_by_the_selection_unless_the_test_objects() -> None:
    won = judge({"a": -0.1}, {"a": 1.0})
    assert won.winner == "a"
    assert won.p_values["a"] < 0.001
    assert "20 selection origins" in won.reason
    vetoed = judge({"a": -0.1}, {"a": 1.01})
    assert vetoed.winner == "tie"
    assert vetoed.p_values == won.p_values
    assert "not on the test" in vetoed.reason
    assert won.to_json()["winner"] == "a"


def test_of_two_that_qualify_the_selection_decides() -> None:
    assert judge({"a": -0.1, "b": -0.2}, {"a": 0.5, "b": 0.9}).winner == "b"
    assert judge({"a": -0.1, "b": -0.2}, {"a": 0.5, "b": 1.1}).winner == "a"


def test_naive_wins_only_over_all_and_on_the_test_as_well() -> None:
    assert judge({"a": 0.2, "b": 0.1}, {"a": 1.1, "b": 1.1}).winner == "naive"
    assert judge({"a": 0.2, "b": 0.1}, {"a": 1.1, "b": 0.9}).winner == "tie"
    assert judge({"a": 0.2, "b": 0.0}, {"a": 1.1, "b": 1.1}).winner == "tie"


def test_no_difference_is_a_tie_however_good_the_test() -> None:
    assert judge({"a": 0.0}, {"a": 0.1}).winner == "tie"
    same = winner(forecasts({"naive": noise(0)}, {"naive": 1.0}), ["naive"])
    assert same == Verdict("tie", {}, same.reason)


def test_chosen_settings_are_judged_by_the_p_over_all_that_were_tried() -> None:
    shifts, test = {"m.adapter": 0.0, "m.chosen": -0.1}, {"m.adapter": 1.0, "m.chosen": 0.9}
    lucky = judge(shifts, test, {"m.chosen": 0.3})
    assert lucky.winner == "tie"
    assert lucky.p_values["m.chosen"] == pytest.approx(0.6), "two candidates are judged"
    real = judge(shifts, test, {"m.chosen": 0.01})
    assert real.winner == "m.chosen"
    assert real.p_values["m.chosen"] == pytest.approx(0.02)
    with pytest.raises(ValueError, match=r"m\.chosen was chosen on these origins"):
        judge(shifts, test)
    with pytest.raises(ValueError, match=r"m\.refined was chosen"):
        judge({"m.refined": 0.0}, {"m.refined": 1.0}, {"m.chosen": 0.5})


def test_a_p_over_all_tried_never_makes_a_worse_choice_certain() -> None:
    """That p is small when anything tried is better; whether the choice is worse is for DM."""
    none = judge({"m.chosen": 0.002}, {"m.chosen": 1.1}, {"m.chosen": 0.001})
    assert none.winner == "tie"
    assert none.p_values["m.chosen"] > 0.05
    worse = judge({"m.chosen": 0.2}, {"m.chosen": 1.1}, {"m.chosen": 1.0})
    assert worse.winner == "naive"
    assert worse.p_values["m.chosen"] < 0.001


@pytest.mark.parametrize("variant", ["last_month", "incumbent"])
def test_what_was_chosen_on_overlapping_windows_is_not_judged(variant: str) -> None:
    name = f"m.{variant}"
    got = judge({name: -0.5, "m.adapter": 0.0}, {name: 0.1, "m.adapter": 1.0})
    assert got.winner == "tie"
    assert set(got.p_values) == {"m.adapter"}
    beaten = judge({name: -0.5, "m.adapter": 0.2}, {name: 0.1, "m.adapter": 1.1})
    assert beaten.winner == "naive", "it does not stand in naive's way either"


def test_a_baseline_may_win() -> None:
    assert judge({"drift": -0.1, "m.adapter": 0.0}, {"drift": 0.9, "m.adapter": 1.0}).winner == (
        "drift"
    )


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert holm({"a": 0.03, "b": 0.01, "c": 0.04}) == pytest.approx(
        {"a": 0.06, "b": 0.03, "c": 0.06}
    )
    assert holm({"a": 0.4, "b": 0.9}) == pytest.approx({"a": 0.8, "b": 0.9})
    assert holm({}) == {}
    draws = np.random.default_rng(0).uniform(0, 0.3, 30)
    got = holm({str(i): float(p) for i, p in enumerate(draws)})
    assert list(got.values()) == pytest.approx(multipletests(draws, method="holm")[1])


def test_pooled_losses_are_tested_by_month_however_many_stocks_a_month_has() -> None:
    months = [f"2023-{m:02d}" for m in range(1, 7)]
    first, second = noise(0, 6), noise(1, 6) + 0.05
    alone = pooled_test(first, second, months)
    assert alone == pytest.approx(diebold_mariano(first, second))
    ten = pooled_test(np.repeat(first, 10), np.repeat(second, 10), np.repeat(months, 10).tolist())
    assert ten == pytest.approx(alone)
    assert pooled_test(first[:5], second[:5], months[:5]) is None
    longer = [np.append(losses, losses[0]) for losses in (first, second)]
    uneven = pooled_test(*longer, [*months, months[0]])
    assert uneven == pytest.approx(alone), "every month weighs the same"
    with pytest.raises(ValueError, match="6 and 6 losses in 5 months"):
        pooled_test(first, second, months[:5])


def test_a_pooled_null_is_rejected_as_often_as_stated_though_stocks_move_together() -> None:
    """20 stocks whose months are good or bad alike are no 160 observations in eight months."""
    rejected = 0
    months = np.repeat([f"m{i}" for i in range(8)], 20)
    for seed in range(200):
        draw = np.random.default_rng(seed)
        shared = draw.normal(0, 0.3, (2, 8, 1)) + draw.normal(0, 0.1, (2, 8, 20))
        first, second = np.abs(1 + shared).reshape(2, -1)
        test = pooled_test(first, second, months.tolist())
        assert test is not None
        rejected += test.p_value < 0.05
        if seed == 0:
            assert diebold_mariano(first, second).p_value < test.p_value
    assert 2 <= rejected <= 20


def coin(window: Window) -> np.ndarray:
    """Up or down 1 %, by a coin that knows nothing but the date."""
    close = window.bars["close"].to_numpy()
    heads = np.random.default_rng(window.origin.value).random() < 0.5
    steps = np.arange(1, len(window.future_sessions) + 1)
    return np.asarray(close[-1] * (1 + (0.01 if heads else -0.01) * steps / steps[-1]))


@pytest.mark.parametrize("path", [drift, pytest.param(coin, marks=pytest.mark.long)])
def test_on_random_walks_nothing_is_better_than_naive(path: PathOf) -> None:
    split = split_of(500)
    significant, won = 0, 0
    for seed in range(20):
        table = compare(
            random_walk(500, seed),
            split,
            [naive(128), candidate("x", path, 128)],
            symbol="A",
            seed=0,
        ).forecasts
        losses = origin_losses(table, ["naive", "x"], segment="selection")
        test = diebold_mariano(losses["x"].to_numpy(), losses["naive"].to_numpy())
        significant += test.p_value < 0.05 and test.statistic < 0
        won += winner(table, ["naive", "x"]).winner == "x"
    assert significant <= 2
    assert won <= significant


def test_on_a_predictable_series_the_one_who_knows_wins() -> None:
    """A drift of .5 % a day under noise of .5 %: carrying it on beats standing still."""
    returns = np.random.default_rng(0).normal(0.005, 0.005, 500)
    bars = bars_of(100 * np.exp(np.cumsum(returns)))
    candidates = [naive(128), candidate("x", drift, 128)]
    table = compare(bars, split_of(500), candidates, symbol="A", seed=0).forecasts
    verdict = winner(table, ["naive", "x"])
    assert verdict.winner == "x"
    assert verdict.p_values["x"] < 1e-4
