"""Skill, its interval and one-sided p: hand-computed, and true as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.pooling import (
    loss_p_value,
    relative_losses,
    skill,
    skill_interval,
)

TRUE_SKILL = 0.1


def months_of_losses(
    seed: int, months: int, per_month: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Losses with an expected skill of TRUE_SKILL, those of one month good or bad together."""
    draw = np.random.default_rng(seed)
    size = (months, per_month)
    base = draw.gamma(4, 0.25, (months, 1)) * draw.gamma(2, 0.5, size)
    shared, own = draw.normal(0, 0.15, (months, 1)), draw.normal(0, 0.2, size)
    factor = np.exp(shared + own - (0.15**2 + 0.2**2) / 2)
    labels = [f"m{i // per_month:02d}" for i in range(months * per_month)]
    return ((1 - TRUE_SKILL) * base * factor).ravel(), base.ravel(), labels


def test_skill_is_of_the_sums_not_the_mean_of_ratios() -> None:
    assert skill([1, 3], [2, 6]) == 0.5
    assert skill([1, 6], [2, 2]) == pytest.approx(1 - 7 / 4)
    assert skill([2, 2], [2, 2]) == 0
    assert skill([], []) is None
    assert skill([1.0], [0.0]) is None


def test_too_few_origins_or_months_give_no_interval() -> None:
    own, base, months = months_of_losses(0, 6, 2)
    assert skill_interval(own[:7], base[:7]) is None
    assert skill_interval(own[:8], base[:8]) is not None
    assert skill_interval(own, base, blocks=months) is not None
    assert skill_interval(own[2:], base[2:], blocks=months[2:]) is None, "five months"
    assert skill_interval(own, np.zeros(12)) is None
    assert skill_interval([], [], blocks=[]) is None


def test_the_interval_repeats_and_holds_the_skill() -> None:
    own, base, months = months_of_losses(1, 12, 4)
    for blocks in (None, months):
        found = skill_interval(own, base, blocks=blocks, seed=3)
        assert found == skill_interval(own, base, blocks=blocks, seed=3)
        assert found != skill_interval(own, base, blocks=blocks, seed=4)
        assert found is not None
        low, high = found
        estimate = skill(own, base)
        assert estimate is not None
        assert low < estimate < high
    assert skill_interval(base, base) == (0.0, 0.0)


def test_months_are_drawn_whole() -> None:
    """Within a month all origins agree, so more of them say nothing more about the skill."""
    own, base, months = months_of_losses(2, 8, 1)
    once = skill_interval(own, base, blocks=months)
    tenfold = skill_interval(np.repeat(own, 10), np.repeat(base, 10), blocks=np.repeat(months, 10))
    assert tenfold == pytest.approx(once)
    loose = skill_interval(np.repeat(own, 10), np.repeat(base, 10))
    assert loose is not None
    assert once is not None
    assert loose[1] - loose[0] < (once[1] - once[0]) / 2


def test_the_order_of_months_does_not_matter() -> None:
    own, base, months = months_of_losses(4, 8, 3)
    back = slice(None, None, -1)
    first = skill_interval(own, base, blocks=months)
    assert skill_interval(own[back], base[back], blocks=months[back]) == pytest.approx(first)


@pytest.mark.parametrize(("months", "per_month"), [(6, 6), (12, 6), (26, 1)])
def test_the_interval_covers_a_known_skill_about_as_often_as_stated(
    months: int, per_month: int
) -> None:
    hits = 0
    for seed in range(100):
        own, base, labels = months_of_losses(seed, months, per_month)
        found = skill_interval(own, base, blocks=labels)
        assert found is not None
        hits += found[0] <= TRUE_SKILL <= found[1]
    assert 0.87 < hits / 100 < 0.99


def test_one_sided_p_is_half_or_the_rest() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.uniform(0.9, 1.1, 20), draw.uniform(0.95, 1.15, 20)
    for alternative in ("two-sided", "less", "greater"):
        got = loss_p_value(first, second, alternative=alternative)  # type: ignore[arg-type]  # a plain str in tests
        expected = ttest_rel(first, second, alternative=alternative).pvalue
        assert got == pytest.approx(expected), alternative
    less = loss_p_value(first, second, alternative="less")
    assert less is not None
    assert less < 0.05, "the first has the smaller loss"


def test_p_of_equal_losses_is_one_and_of_one_origin_unknown() -> None:
    assert loss_p_value([1, 2], [1, 2], alternative="less") == 1
    assert loss_p_value([1, 2], [1, 2], alternative="greater") == 1
    assert loss_p_value([1], [2]) is None


def test_losses_that_are_not_paired_or_finite_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="not paired"):
        skill([1, 2], [1])
    with pytest.raises(ValueError, match="not finite"):
        skill_interval([1.0, np.nan], [1, 1])
    with pytest.raises(ValueError, match="1 block labels for 2"):
        skill_interval([1, 2], [1, 1], blocks=["a"])


def test_relative_losses_are_shares_of_the_close_they_were_forecast_from() -> None:
    table = {
        "cutoff": ["2023-06-01", "2023-06-12"],
        "origin_close": [50.0, 200.0],
        "naive": [1.0, 2.0],
        "kronos.adapter": [0.5, 4.0],
    }
    got = relative_losses(table)
    assert got.index.name == "cutoff"
    assert got.index.tolist() == table["cutoff"]
    assert list(got.columns) == ["naive", "kronos.adapter"]
    assert got["naive"].tolist() == [0.02, 0.01]
    assert got["kronos.adapter"].tolist() == [0.01, 0.02]


def test_a_broken_table_of_losses_is_refused_by_name() -> None:
    table = {"cutoff": ["2023-06-01"], "origin_close": [50.0], "naive": [1.0, 2.0]}
    with pytest.raises(BadInput, match="losses of naive are not 1"):
        relative_losses(table)
    with pytest.raises(BadInput, match="lacks origin_close"):
        relative_losses({"cutoff": [], "naive": []})
