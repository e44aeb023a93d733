"""The rule that picks a setting, and the test of the best of many against the default."""

from __future__ import annotations

import numpy as np
import pytest

from retrain_assets.evaluation.choice import choose, paired_test, spa_p_value
from retrain_assets.evaluation.significance import diebold_mariano
from retrain_assets.training.losses import NEGLIGIBLE

NEAR = np.zeros(5, dtype=np.int64)
"""Departures from the default where all depart alike."""


def table(*shifts: float, noise: float = 0.1, n: int = 26, seed: int = 0) -> np.ndarray:
    """Losses that share the ups and downs of their origins, (origin, setting)."""
    rng = np.random.default_rng(seed)
    return rng.gamma(4, 1, (n, 1)) + np.array(shifts) + noise * rng.normal(size=(n, len(shifts)))


def test_the_paired_test_is_that_of_the_comparison() -> None:
    losses = table(0, 0.02, 0.5, 0)
    losses[:, 3] = losses[:, 0]
    p_values, errors = paired_test(losses, losses[:, 0])
    expected = [diebold_mariano(losses[:, i], losses[:, 0]).p_value for i in range(4)]
    np.testing.assert_allclose(p_values, expected, rtol=1e-12)
    difference = losses[:, 1] - losses[:, 0]
    assert errors[1] == pytest.approx(difference.std(ddof=1) / np.sqrt(26))


def test_a_clear_best_is_chosen_whatever_it_costs() -> None:
    choice = choose(table(1.0, 0.0, 1.2), np.array([5, 50, 5]), NEAR[:3])
    assert (choice.chosen, choice.best) == (1, 1)
    assert choice.tied.tolist() == [False, True, False]


def test_ties_go_to_the_cheapest_then_to_the_lowest_loss_then_to_the_first() -> None:
    losses = table(0.0, 0.0, 0.0, 0.0, 2.0, seed=2)
    means = losses.mean(axis=0)
    best = int(means[:4].argmin())
    assert choose(losses, np.full(5, 10), NEAR).chosen == best
    costs = np.array([10, 10, 10, 10, 5])
    others = [i for i in range(4) if i != best]
    costs[others[:2]] = 6
    choice = choose(losses, costs, NEAR)
    assert choice.best == best
    assert choice.tied.tolist() == [True, True, True, True, False]
    assert choice.chosen == min(others[:2], key=lambda i: means[i])
    twins = np.repeat(losses[:, :1], 3, axis=1)
    assert choose(twins, np.array([9, 7, 7]), NEAR[:3]).chosen == 1


def test_of_equally_cheap_ties_the_one_nearest_the_default_is_chosen() -> None:
    losses = table(0.0, 0.0, 0.0, 2.0, seed=2)
    costs, departures = np.array([5, 5, 5, 5]), np.array([2, 1, 2, 0])
    assert choose(losses, costs, departures).chosen == 1
    costs[1] = 6
    assert choose(losses, costs, departures).chosen != 1, "cost comes first"


def test_a_difference_too_small_to_matter_is_a_tie_however_sure() -> None:
    default = table(0.0)[:, 0]
    for gain, chosen in ((NEGLIGIBLE / 2, 0), (NEGLIGIBLE * 2, 1)):
        losses = np.column_stack([default, default * (1 - gain)])
        choice = choose(losses, np.array([1, 1]), np.array([0, 1]))
        assert choice.p_values[0] < 1e-6
        assert choice.chosen == chosen


def test_what_was_not_seen_everywhere_is_not_eligible() -> None:
    losses = table(0.0, 1.0, 1.0)
    losses[5, 0] = np.nan
    choice = choose(losses, np.array([1, 5, 5]), NEAR[:3])
    assert choice.best in (1, 2)
    assert not choice.tied[0]
    assert np.isnan(choice.p_values[0])
    with pytest.raises(ValueError, match="no setting"):
        choose(np.full((4, 2), np.nan), np.array([1, 1]), NEAR[:2])


def test_a_setting_better_than_the_default_is_found_among_many() -> None:
    losses = table(0.0, *[0.0] * 60, -0.15)
    assert spa_p_value(losses[:, 1:], losses[:, 0], seed=0) < 0.01
    assert spa_p_value(losses[:, 1:-1], losses[:, 0], seed=0) > 0.05
    worse = table(0.0, *[0.5] * 60)
    assert spa_p_value(worse[:, 1:], worse[:, 0], seed=0) > 0.5, "it is one-sided"


def test_a_noisy_crowd_does_not_hide_a_small_sure_gain() -> None:
    """What studentising is for: the gain is far below the noise of the others' mean."""
    rng = np.random.default_rng(1)
    default = rng.gamma(4, 1, 26)
    crowd = default[:, None] + rng.normal(size=(26, 40))
    sure = default - 0.05 + 0.02 * rng.normal(size=26)
    losses = np.column_stack([crowd, sure])
    assert abs(sure.mean() - default.mean()) < (crowd.mean(axis=0) - default.mean()).std()
    assert spa_p_value(losses, default, seed=0) < 0.01


def test_equal_settings_and_dropped_ones_do_not_break_the_test() -> None:
    losses = table(0.0, 0.0, -0.15)
    default = losses[:, 0]
    assert spa_p_value(losses[:, :1], default, seed=0) == 1.0
    assert spa_p_value(np.full((26, 3), np.nan), default, seed=0) == 1.0
    assert spa_p_value(default[:, None] - 0.1, default, seed=0) < 0.01, "always better"
    whole = spa_p_value(losses, default, seed=0)
    assert whole == spa_p_value(losses, default, seed=0)
    dropped = losses.copy()
    dropped[6:, 2] = np.nan
    assert whole < 0.01 < spa_p_value(dropped, default, seed=0), "unseen counts as no gain"


def test_more_repetitions_tell_a_smaller_p() -> None:
    losses = table(0.0, -0.5)
    for repetitions in (99, 1999):
        p = spa_p_value(losses[:, 1:], losses[:, 0], seed=0, repetitions=repetitions)
        assert p == 1 / (repetitions + 1)


@pytest.mark.long
def test_how_often_chance_alone_looks_like_a_gain() -> None:
    """The bootstrap is liberal with 26 origins, and its documentation says by how much."""
    p_values = [
        spa_p_value(losses[:, 1:], losses[:, 0], seed=0)
        for losses in (table(*[0.0] * 25, seed=seed) for seed in range(80))
    ]
    assert 0.03 < np.mean(np.array(p_values) < 0.05) < 0.15
