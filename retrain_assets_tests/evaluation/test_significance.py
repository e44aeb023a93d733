"""The Diebold-Mariano test, the winner rule, and what chance alone is allowed to win."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from retrain_assets.evaluation.comparison import compare
from retrain_assets.evaluation.significance import (
    Verdict,
    against_naive,
    diebold_mariano,
    origin_losses,
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


def judge(shifts: dict[str, float], test: dict[str, float]) -> Verdict:
    """Verdict on candidates whose selection losses are naive's plus a shift and noise."""
    base = noise(0) + 1
    selection = {"naive": base}
    for seed, (name, shift) in enumerate(shifts.items()):
        selection[name] = base + shift + 0.1 * noise(seed + 1) - 0.1
    return winner(forecasts(selection, {"naive": 1.0} | test), list(selection))


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


def coin(window: Window) -> np.ndarray:
    """Up or down 1 %, by a coin that knows nothing but the date."""
    close = window.bars["close"].to_numpy()
    heads = np.random.default_rng(window.origin.value).random() < 0.5
    steps = np.arange(1, len(window.future_sessions) + 1)
    return np.asarray(close[-1] * (1 + (0.01 if heads else -0.01) * steps / steps[-1]))


@pytest.mark.parametrize("path", [drift, coin])
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
