"""What both kinds of predictive distribution promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.knots import QuantileKnots
from retrain_assets.models.toto.mixture import StudentMixture
from retrain_assets.models.toto.predictive import Predictive

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LEVELS = (0.001, 0.05, 0.1, 0.1001, 0.3, 0.5, 0.75, 0.9, 0.999)
repeatable = settings(derandomize=True, deadline=None, max_examples=25)


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


def both(seed: int, *shape: int) -> list[Predictive]:
    return [mixture(seed, *shape), knots(seed, *shape)]


def integral(function: Callable[[float], float], cuts: Sequence[float]) -> float:
    """Adaptive quadrature over each stretch between the cuts, where the function is smooth."""
    return float(
        sum(integrate.quad(function, *span, epsabs=1e-10, limit=200)[0] for span in pairwise(cuts))
    )


def cuts_of(one: Predictive, *more: float) -> list[float]:
    """Where a density may have corners (knots), or where a mixture's bulk is."""
    corners = one.values if isinstance(one, QuantileKnots) else one.quantile((0.001, 0.5, 0.999))
    return sorted({*(float(corner) for corner in corners), *more})


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("tau", [0.6, 1.0, 1.25])
@pytest.mark.parametrize("y", [-6.0, 0.4, 3.0, 30.0])
def test_the_score_is_its_definition(kind: int, tau: float, y: float) -> None:
    one = both(3)[kind].temper(tau)
    cuts = cuts_of(one, y)
    below = [-np.inf, *(cut for cut in cuts if cut < y), y]
    above = [y, *(cut for cut in cuts if cut > y), np.inf]
    expected = integral(lambda z: float(one.cdf(z)) ** 2, below)
    expected += integral(lambda z: (1 - float(one.cdf(z))) ** 2, above)
    assert one.crps(y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("tau", [0.3, 0.7, 1.0])
def test_density_cdf_and_mean_belong_together(kind: int, tau: float) -> None:
    one = both(4)[kind].temper(tau)
    cuts = cuts_of(one, 0.0)
    for left, right in pairwise(cuts):
        mass = integral(lambda z: np.exp(float(one.log_density(z))), (left, right))
        assert mass == pytest.approx(float(one.cdf(right) - one.cdf(left)), abs=1e-9)
    lower = [-np.inf, *(cut for cut in cuts if cut < 0), 0.0]
    upper = [0.0, *(cut for cut in cuts if cut > 0), np.inf]
    mean = integral(lambda z: 1 - float(one.cdf(z)), upper)
    mean -= integral(lambda z: float(one.cdf(z)), lower)
    assert one.mean() == pytest.approx(mean, abs=1e-5)


@repeatable
@given(seed=st.integers(0, 10**6), tau=st.sampled_from([0.2, 0.7, 1.0, 1.25]))
def test_quantiles_invert_the_cdf_and_rise(seed: int, tau: float) -> None:
    for one in both(seed, 3):
        tempered = one.temper(tau)
        quantiles = tempered.quantile(LEVELS)
        assert quantiles.shape == (len(LEVELS), 3)
        assert (np.diff(quantiles, axis=0) > 0).all()
        levels = tempered.cdf(quantiles)
        np.testing.assert_allclose(levels, np.array(LEVELS)[:, None] + 0 * levels, atol=1e-9)
        assert np.array_equal(tempered.median(), quantiles[LEVELS.index(0.5)])


@repeatable
@given(
    seed=st.integers(0, 10**6),
    tau=st.sampled_from([0.4, 1.2]),
    loc=st.sampled_from([0.0, -3.0, 1e5]),
    scale=st.sampled_from([1e-6, 0.5, 1.0, 1e4, 1e5]),
)
def test_a_change_of_units_changes_the_units(
    seed: int, tau: float, loc: float, scale: float
) -> None:
    for one in both(seed, 4):
        moved = one.affine(loc, scale)
        rounding = {"atol": 1e-9 * scale + 1e-14 * abs(loc), "rtol": 1e-9}
        np.testing.assert_allclose(
            moved.quantile(LEVELS), loc + scale * one.quantile(LEVELS), **rounding
        )
        np.testing.assert_allclose(moved.mean(), loc + scale * one.mean(), **rounding)
        y = one.quantile((0.8,))[0]
        at = loc + scale * y
        if scale < 1e-3 and loc:
            continue  # what is left of the digits of 1e5 does not carry the densities below
        np.testing.assert_allclose(moved.cdf(at), one.cdf(y), atol=1e-9)
        np.testing.assert_allclose(
            moved.log_density(at), one.log_density(y) - np.log(scale), atol=1e-7
        )
        np.testing.assert_allclose(moved.crps(at), scale * one.crps(y), rtol=1e-8)
        np.testing.assert_allclose(
            moved.temper(tau).quantile(LEVELS),
            loc + scale * one.temper(tau).quantile(LEVELS),
            atol=1e-7 * scale,
            rtol=1e-9,
        )


def test_units_may_differ_from_window_to_window() -> None:
    for one in both(5, 2, 3):
        loc, scale = np.array([[1.0], [-2.0]]), np.array([[0.1], [7.0]])
        moved = one.affine(loc, scale)
        np.testing.assert_allclose(moved.median(), loc + scale * one.median(), rtol=1e-12)
    for one in both(5, 3):  # the same steps in the units of two windows
        moved = one.affine(loc, scale)
        assert moved.quantile((0.2, 0.5)).shape == (2, 2, 3)
        assert moved.mean().shape == (2, 3)
        assert moved.crps(np.zeros((2, 3))).shape == (2, 3)
        assert moved.temper(0.5).median().shape == (2, 3)


def test_no_element_knows_of_the_others() -> None:
    everything = [mixture(6, 7, 12, components=24), knots(6, 7, 12)]
    y = np.random.default_rng(0).normal(size=(7, 12))
    for tau in (1.0, 0.6):
        for kind, all_rows in enumerate(everything):
            together = [
                all_rows.temper(tau).quantile(LEVELS),
                all_rows.temper(tau).mean(),
                all_rows.temper(tau).cdf(y),
                all_rows.temper(tau).log_density(y),
                all_rows.temper(tau).crps(y),
            ]
            for rows in (np.s_[2:3, 4:5], np.s_[5:, :11], np.s_[::3, ::5]):
                some = part(all_rows, rows).temper(tau)
                alone = [some.mean(), some.cdf(y[rows]), some.log_density(y[rows])]
                assert np.array_equal(together[0][:, *rows], some.quantile(LEVELS)), kind
                assert np.array_equal(together[0][4:5, *rows], some.quantile(LEVELS[4:5])), kind
                for whole, piece in zip(together[1:4], alone, strict=True):
                    assert np.array_equal(whole[rows], piece), kind
                assert np.array_equal(together[4][rows], some.crps(y[rows])), kind


def part(one: Predictive, rows: tuple[slice, slice]) -> Predictive:
    if isinstance(one, StudentMixture):
        fields = (one.df, one.location, one.scale, one.log_weight)
        return StudentMixture(*(field[rows] for field in fields))
    assert isinstance(one, QuantileKnots)
    return QuantileKnots.of(one.values[rows])


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
def test_levels_and_scales_out_of_range_are_refused(kind: int) -> None:
    one = both(8, 2)[kind]
    for level in (0.0, 1.0, -0.1, 50, np.nan):
        with pytest.raises(BadInput, match="level"):
            one.quantile((0.5, level))
    for scale in (0.0, [1.0, -1.0]):
        with pytest.raises(BadInput, match="scale"):
            one.affine(0.0, scale)
