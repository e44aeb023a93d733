"""What both kinds of predictive distribution promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.knots import QuantileKnots
from retrain_assets.models.toto.mixture import StudentMixture
from retrain_assets.models.toto.predictive import Temperable
from retrain_assets_tests.models.toto import brute_force

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LEVELS = (0.001, 0.05, 0.1, 0.1001, 0.3, 0.5, 0.75, 0.9, 0.999)


def mixture(seed: int, *shape: int, components: int = 5, low: float = 2.0) -> StudentMixture:
    rng = np.random.default_rng(seed)
    size = (*shape, components)
    return StudentMixture.of(
        low + rng.gamma(2, 2, size),
        rng.normal(0, 2, size),
        np.exp(rng.normal(0, 1, size)),
        rng.normal(0, 2, size),
    )


def knots(seed: int, *shape: int) -> QuantileKnots:
    rng = np.random.default_rng(seed)
    return QuantileKnots.of(rng.gamma(1, 1, (*shape, 9)).cumsum(-1) - 5)


def both(seed: int, *shape: int) -> list[Temperable]:
    return [mixture(seed, *shape), knots(seed, *shape)]


def part(one: Temperable, rows: int | tuple[slice, slice]) -> Temperable:
    if isinstance(one, StudentMixture):
        fields = (one.df, one.location, one.scale, one.log_weight)
        return StudentMixture(*(field[rows] for field in fields))
    assert isinstance(one, QuantileKnots)
    return QuantileKnots.of(one.values[rows])


def truth(one: Temperable, tau: float) -> brute_force.Power:
    if isinstance(one, StudentMixture):
        return brute_force.of_mixture(one, tau)
    assert isinstance(one, QuantileKnots)
    return brute_force.of_knots(one.values, tau)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), tau=st.sampled_from([0.2, 0.7, 1.0, 1.25]))
def test_quantiles_and_mean_are_those_of_the_power_of_the_density(seed: int, tau: float) -> None:
    for one in both(seed, 3):
        found = one.temper(tau)
        quantiles, mean = found.quantile(LEVELS), found.mean()
        assert quantiles.shape == (len(LEVELS), 3)
        assert (np.diff(quantiles, axis=0) > 0).all()
        for i in range(3):
            expected = truth(part(one, i), tau)
            levels = [expected.cdf(quantile) for quantile in quantiles[:, i]]
            np.testing.assert_allclose(levels, LEVELS, atol=1e-9)
            assert mean[i] == pytest.approx(expected.mean, abs=1e-9)


def test_no_element_knows_of_the_others() -> None:
    everything = [mixture(6, 7, 12, components=24), knots(6, 7, 12)]
    for tau in (1.0, 0.6):
        for kind, all_rows in enumerate(everything):
            together = all_rows.temper(tau)
            quantiles, mean = together.quantile(LEVELS), together.mean()
            for rows in (np.s_[2:3, 4:5], np.s_[5:, :11], np.s_[::3, ::5]):
                some = part(all_rows, rows).temper(tau)
                assert np.array_equal(quantiles[:, *rows], some.quantile(LEVELS)), kind
                assert np.array_equal(quantiles[4:5, *rows], some.quantile(LEVELS[4:5])), kind
                assert np.array_equal(mean[rows], some.mean()), kind


@pytest.mark.parametrize("kind", [0, 1])
def test_temperature_one_changes_nothing(kind: int) -> None:
    one = both(7, 2)[kind]
    assert one.temper(1) is one
    assert one.temper(1.0) is one
    near = one.temper(1 + 1e-12)
    np.testing.assert_allclose(near.quantile(LEVELS), one.quantile(LEVELS), atol=1e-9)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("tau", [0.0, -1.0, np.inf, np.nan])
def test_a_temperature_that_is_none_is_refused(kind: int, tau: float) -> None:
    with pytest.raises(BadInput, match="temperature"):
        both(8)[kind].temper(tau)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("tau", [0.7, 1.0])
def test_levels_out_of_range_are_refused(kind: int, tau: float) -> None:
    one = both(8, 2)[kind].temper(tau)
    for level in (0.0, 1.0, -0.1, 50, np.nan):
        with pytest.raises(BadInput, match="level"):
            one.quantile((0.5, level))
