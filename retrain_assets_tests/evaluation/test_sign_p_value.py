"""The test of one setting's lead among many: exact with few origins, whatever the tails."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from retrain_assets.evaluation.choice import sign_p_value


def p_of(lead: np.ndarray, repetitions: int = 4999, seed: int = 0) -> float:
    """p of the first of these leads, (origin, setting)."""
    incumbent = np.full(len(lead), 10.0)
    return sign_p_value(incumbent[:, None] - lead, incumbent, repetitions=repetitions, seed=seed)


def test_with_few_origins_it_is_the_share_of_all_changes_of_sign() -> None:
    lead = np.random.default_rng(0).normal(0.5, 1, (8, 3))
    observed = ttest_1samp(lead[:, 0], 0).statistic
    highest = [
        ttest_1samp(lead * np.array(signs)[:, None], 0).statistic.max()
        for signs in itertools.product([1, -1], repeat=8)
    ]
    expected = np.mean(np.array(highest) >= observed - 1e-9)
    assert 0.05 < expected < 0.95
    assert p_of(lead) == expected


def test_of_many_changes_a_sample_is_drawn_and_the_observed_one_counts() -> None:
    lead = np.full((26, 1), 0.1)
    assert p_of(lead, 999) == 1 / 1000
    lead = np.random.default_rng(1).normal(0.3, 1, (26, 1))
    assert p_of(lead) == p_of(lead)
    assert p_of(lead) == pytest.approx(
        ttest_1samp(lead[:, 0], 0, alternative="greater").pvalue, rel=0.3
    )
    assert p_of(lead, seed=1) != p_of(lead)


def test_others_tried_make_a_lead_count_less_unless_they_are_the_same() -> None:
    rng = np.random.default_rng(2)
    lead = rng.normal(0.6, 1, (26, 1))
    others = rng.normal(0, 1, (26, 100))
    alone = p_of(lead)
    assert alone < 0.01
    assert p_of(np.column_stack([lead, others])) > 5 * alone
    assert p_of(np.column_stack([lead, 3 * lead, lead])) == alone
    assert p_of(np.column_stack([lead, 0 * others])) == alone, "no lead is no rival"
    assert p_of(np.column_stack([lead, np.full((26, 2), np.nan)])) == alone


def test_it_is_one_sided() -> None:
    lead = np.random.default_rng(3).normal(-0.6, 1, (26, 1))
    assert p_of(lead) > 0.95
    assert p_of(0 * lead) == 1


@pytest.mark.parametrize(("origins", "settings"), [(8, 1), (26, 1), (26, 20)])
@pytest.mark.parametrize("tails", [1, 30], ids=["Cauchy", "normal"])
def test_the_best_of_equals_is_significant_as_often_as_stated(
    origins: int, settings: int, tails: int
) -> None:
    """The one with the highest t is asked about, the worst case, at a level of 10 %."""
    rng, significant = np.random.default_rng(4), 0
    for seed in range(250):
        lead = rng.standard_t(tails, (origins, 1)) + rng.standard_t(tails, (origins, settings))
        best = np.argmax(ttest_1samp(lead, 0).statistic)
        significant += p_of(np.roll(lead, -best, axis=1), 199, seed) <= 0.1
    assert 0.06 < significant / 250 < 0.145
