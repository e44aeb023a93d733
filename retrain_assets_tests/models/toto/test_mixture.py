"""The Student-T mixture against scipy's t."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.mixture import StudentMixture

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
DFS = (1.2, 2.0, 2.5, 4.0, 30.0, 1e3, 1e6)


def single(df: float, location: float = 0.0, scale: float = 1.0) -> StudentMixture:
    return StudentMixture.of([df], [location], [scale], [0.0])


def cdf(one: StudentMixture, y: np.ndarray) -> np.ndarray:
    """Of one element, after scipy."""
    parts = stats.t.cdf(y[..., None], one.df, one.location, one.scale)
    return (special.softmax(one.log_weight) * parts).sum(-1)


def drawn(seed: int, *shape: int) -> StudentMixture:
    rng = np.random.default_rng(seed)
    size = (*shape, 5)
    df, location = 2 + rng.gamma(2, 2, size), rng.normal(0, 2, size)
    return StudentMixture.of(df, location, np.exp(rng.normal(0, 1, size)), rng.normal(0, 2, size))


@pytest.mark.parametrize("df", DFS)
def test_one_component_is_scipys_t(df: float) -> None:
    one, reference = single(df, -3.0, 0.2), stats.t(df, -3.0, 0.2)
    levels = (1e-9, *LEVELS, 1 - 1e-9)
    np.testing.assert_allclose(one.quantile(levels), reference.ppf(levels), rtol=1e-12)
    assert one.mean() == -3.0


def test_quantiles_of_a_mixture_on_a_brute_force_grid() -> None:
    one = StudentMixture.of([3.0, 8.0, 2.1], [-1.0, 2.0, 0.5], [0.3, 0.5, 2.0], [0.0, -0.5, -1.0])
    parts = zip(one.df, one.location, one.scale, np.exp(one.log_weight), strict=True)
    grid = np.linspace(-60, 60, 200_001)
    levels = sum(w * stats.t.cdf(grid, df, mu, sigma) for df, mu, sigma, w in parts)
    expected = np.interp(LEVELS, levels, grid)
    np.testing.assert_allclose(one.quantile(LEVELS), expected, atol=1e-6)


def test_tails_too_heavy_for_a_mean_say_so() -> None:
    one = StudentMixture.of([0.6, 30.0], [0.0, 5.0], [1.0, 1.0], [0.0, 0.0])
    np.testing.assert_allclose(cdf(one, one.quantile(LEVELS)), LEVELS, atol=1e-12)
    with pytest.raises(BadInput, match=r"no mean.*0\.6 degrees"):
        one.mean()


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    tau=st.sampled_from([0.4, 1.0, 1.2]),
    loc=st.sampled_from([0.0, -3.0, 1e5]),
    scale=st.sampled_from([1e-6, 0.5, 1.0, 1e4, 1e5]),
)
def test_a_change_of_units_changes_the_units(
    seed: int, tau: float, loc: float, scale: float
) -> None:
    one = drawn(seed, 4)
    plain, moved = one.temper(tau), one.affine(loc, scale).temper(tau)
    rounding = {"atol": 1e-9 * scale + 1e-14 * abs(loc), "rtol": 1e-9}
    np.testing.assert_allclose(
        moved.quantile(LEVELS), loc + scale * plain.quantile(LEVELS), **rounding
    )
    np.testing.assert_allclose(moved.mean(), loc + scale * plain.mean(), **rounding)


def test_units_may_differ_from_window_to_window() -> None:
    loc, scale = np.array([[1.0], [-2.0]]), np.array([[0.1], [7.0]])
    one = drawn(5, 2, 3)
    moved = one.affine(loc, scale)
    expected = loc + scale * one.quantile(LEVELS)
    np.testing.assert_allclose(moved.quantile(LEVELS), expected, rtol=1e-12)
    one = drawn(5, 3)  # the same steps in the units of two windows
    moved = one.affine(loc, scale)
    assert moved.quantile((0.2, 0.5)).shape == (2, 2, 3)
    np.testing.assert_allclose(moved.mean(), loc + scale * one.mean(), rtol=1e-12)
    assert moved.temper(0.5).mean().shape == (2, 3)


@pytest.mark.parametrize("scale", [0.0, [1.0, -1.0]])
def test_a_unit_that_is_not_above_0_is_refused(scale: float | list[float]) -> None:
    with pytest.raises(BadInput, match="scale"):
        drawn(8, 2).affine(0.0, scale)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    df=st.lists(st.sampled_from([2.0, 2.3, 5.0, 1e2, 1e6]), min_size=4, max_size=4),
    place=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    width=st.lists(st.sampled_from([1e-9, 1e-3, 1.0, 30.0]), min_size=4, max_size=4),
    weight=st.lists(st.sampled_from([0.0, -1.0, -10.0, -80.0]), min_size=4, max_size=4),
    size=st.sampled_from([1e-6, 1.0, 1e5]),
)
def test_nothing_breaks_at_the_extremes(
    df: list[float],
    place: list[float],
    width: list[float],
    weight: list[float],
    size: float,
) -> None:
    one = StudentMixture.of(df, size * np.array(place), size * np.array(width), weight)
    share = special.softmax(weight)
    np.testing.assert_allclose(np.exp(one.log_weight), share, rtol=1e-12)
    quantiles = one.quantile(LEVELS)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles) >= 0).all()
    # A component may be so narrow that its CDF passes a level between two neighbouring floats.
    near = 8 * np.spacing(np.abs(quantiles))
    assert (cdf(one, quantiles - near) <= np.array(LEVELS) + 1e-9).all()
    assert (cdf(one, quantiles + near) >= np.array(LEVELS) - 1e-9).all()
    assert one.mean() == pytest.approx(size * float(share @ place), abs=1e-12 * size)


def test_scales_that_vanish_are_atoms() -> None:
    one = StudentMixture.of([2.0, 4.0], [1.0, 3.0], [0.0, 1e-44], np.log([0.3, 0.7]))
    assert one.quantile((0.1, 0.29, 0.31, 0.9)).tolist() == pytest.approx([1, 1, 3, 3], abs=1e-12)
    assert one.mean() == pytest.approx(2.4)


def test_components_that_cannot_be_do_not_matter() -> None:
    plain = StudentMixture.of([3.0], [1.0], [2.0], [0.0])
    one = StudentMixture.of([3.0, 5.0], [1.0, -9.0], [2.0, 0.1], [0.0, -np.inf])
    np.testing.assert_allclose(one.quantile(LEVELS), plain.quantile(LEVELS), rtol=1e-12)
    assert one.mean() == plain.mean()


def test_logits_need_no_normalising() -> None:
    logits = np.array([700.0, 701.0, 690.0])
    one = StudentMixture.of(3.0, [0.0, 1.0, 2.0], 1.0, logits)
    np.testing.assert_allclose(np.exp(one.log_weight), special.softmax(logits), rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_symmetric_mixture_keeps_its_median(offset: float) -> None:
    rng = np.random.default_rng(2)
    df, location, scale = rng.uniform(2, 9, 12), rng.normal(size=12), rng.gamma(2, 1, 12)
    mirrored = np.concatenate([location, -location]) + offset
    one = StudentMixture.of(np.tile(df, 2), mirrored, np.tile(scale, 2), 0.0)
    for tau in (0.5, 1.0, 1.25):
        assert one.temper(tau).quantile((0.5,))[0] == pytest.approx(offset, abs=1e-12)
        assert one.temper(tau).mean() == pytest.approx(offset, abs=1e-12)


def test_parameters_broadcast_before_weights_are_shared_out() -> None:
    one = StudentMixture.of(3.0, np.arange(6.0).reshape(2, 3), 1.0, 0.0)
    np.testing.assert_allclose(np.exp(one.log_weight), np.full((2, 3), 1 / 3), rtol=1e-15)
    np.testing.assert_allclose(one.mean(), [1.0, 4.0], rtol=1e-15)
