"""The density between and beyond nine quantiles, against quadrature and hand counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from retrain_assets.models.toto.knots import LEVELS, NARROWEST, QuantileKnots

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

UNEVEN = np.array([-3.0, -1.0, -0.7, -0.6, 0.0, 0.2, 1.5, 1.9, 4.0])
MANY = (0.001, 0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.85, 0.9, 0.95, 0.999)


def power_by_quadrature(one: QuantileKnots, tau: float) -> tuple[np.ndarray, float]:
    """Mass of the cells of p^(1/tau), and its mean, from the density alone."""
    ends = [-np.inf, *one.values, np.inf]
    parts = []

    def power(y: float) -> float:
        return float(np.exp(one.log_density(y) / tau))

    def moment(y: float) -> float:
        return y * power(y)

    for left, right in pairwise(ends):
        # Short of the right knot: there the density is that of the next cell.
        span = left, np.nextafter(right, -np.inf) if np.isfinite(right) else right
        parts.append([integrate.quad(f, *span, epsabs=1e-13)[0] for f in (power, moment)])
    masses, moments = np.array(parts).T
    return masses / masses.sum(), moments.sum() / masses.sum()


def test_the_knots_are_the_quantiles_to_the_bit() -> None:
    values = np.random.default_rng(0).normal(size=(50, 9)) * 1e5
    one = QuantileKnots.of(values)
    assert np.array_equal(one.quantile(LEVELS), np.sort(values, axis=-1).T)
    np.testing.assert_allclose(one.cdf(one.quantile(LEVELS)).T, [LEVELS] * 50, rtol=1e-15)


def test_cells_are_uniform_and_tails_exponential() -> None:
    one = QuantileKnots.of(UNEVEN[::-1])
    assert one.quantile((0.25,))[0] == pytest.approx(-0.85)
    assert one.cdf(0.05) == pytest.approx(0.525)
    assert np.exp(one.log_density(0.05)) == pytest.approx(0.1 / 0.2)
    edges = [np.exp(one.log_density(y)) for y in (-3 - 1e-9, -3 + 1e-9, 4 - 1e-9, 4 + 1e-9)]
    assert edges == pytest.approx([0.05, 0.05, 0.1 / 2.1, 0.1 / 2.1])
    assert one.quantile((0.1 * np.exp(-3),))[0] == pytest.approx(-3 - 3 * 2)
    assert one.quantile((1 - 0.1 * np.exp(-3),))[0] == pytest.approx(4 + 3 * 2.1)
    mean = 0.1 * ((UNEVEN[1:] + UNEVEN[:-1]).sum() / 2 + (-3 - 2) + (4 + 2.1))
    assert one.mean() == pytest.approx(mean)


@pytest.mark.parametrize("tau", [0.3, 0.6, 0.95, 1.3, 3.0])
def test_tempering_is_the_power_of_the_density(tau: float) -> None:
    one = QuantileKnots.of(UNEVEN)
    tempered = one.temper(tau)
    mass, mean = power_by_quadrature(one, tau)
    np.testing.assert_allclose(tempered.mass, mass, atol=1e-9)
    np.testing.assert_allclose(tempered.levels, mass.cumsum()[:-1], atol=1e-9)
    assert tempered.mean() == pytest.approx(mean, abs=1e-8)
    # Everywhere the log density is that of the power, up to one constant.
    y = np.concatenate([np.linspace(-30, -3.01, 9), UNEVEN[:-1] + 0.05, np.linspace(4.1, 30, 9)])
    constant = tempered.log_density(y) - one.log_density(y) / tau
    np.testing.assert_allclose(constant, constant[0], atol=1e-9)


@pytest.mark.parametrize("tau", [0.4, 1.7])
def test_a_tempered_quantile_on_a_brute_force_grid(tau: float) -> None:
    one = QuantileKnots.of(UNEVEN)
    grid = np.linspace(-120, 120, 600_001)
    density = np.exp(one.log_density(grid) / tau)
    levels = np.cumsum((density[1:] + density[:-1]) / 2)
    expected = np.interp((0.02, 0.3, 0.5, 0.8, 0.97), levels / levels[-1], grid[1:])
    found = one.temper(tau).quantile((0.02, 0.3, 0.5, 0.8, 0.97))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_low_temperature_takes_the_median_to_the_densest_interval() -> None:
    one = QuantileKnots.of(UNEVEN)  # its densest interval is -.7 to -.6
    medians = [float(one.temper(tau).median()) for tau in (1.5, 1.0, 0.7, 0.4, 0.1)]
    assert (np.diff(medians) < 0).all()
    assert medians[1] == 0.0
    assert -0.7 < medians[-1] < -0.6


def test_even_knots_keep_their_median() -> None:
    one = QuantileKnots.of(np.arange(9.0))
    for tau in (0.3, 0.8, 2.0):
        assert one.temper(tau).median() == pytest.approx(4, abs=1e-12)
        assert one.temper(tau).mean() == pytest.approx(4, abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.sampled_from([0.0, 1e-12, 1e-5, 1e-2, 1.0]), min_size=8, max_size=8),
    first=st.sampled_from([0.0, -1.0, 1e5]),
    size=st.sampled_from([1e-6, 1.0, 1e5]),
    tau=st.sampled_from([0.05, 0.3, 1.0, 1.5, 10.0]),
)
def test_nothing_breaks_at_the_extremes(
    gaps: list[float], first: float, size: float, tau: float
) -> None:
    values = first + size * np.concatenate([[0.0], np.cumsum(gaps)])
    one = QuantileKnots.of(values).temper(tau)
    assert one.mass.sum() == pytest.approx(1, abs=1e-12)
    quantiles = one.quantile(MANY)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles) >= 0).all()
    probes = np.concatenate([quantiles, values, [first - size, first + 9 * size]])
    levels = one.cdf(np.sort(probes))
    assert (np.diff(levels) >= 0).all()
    assert levels[0] >= 0
    assert levels[-1] <= 1
    assert (one.cdf(quantiles + 4 * np.spacing(np.abs(quantiles))) >= np.array(MANY) - 1e-9).all()
    assert not np.isnan(one.log_density(probes)).any()
    assert (one.crps(probes) >= -1e-9 * size).all()
    assert np.isfinite(one.mean())


@pytest.mark.parametrize("value", [0.0, 1e-6, -3.0, 1e5])
def test_a_constant_series_is_its_value(value: float) -> None:
    for tau in (0.1, 1.0, 4.0):
        one = QuantileKnots.of(np.full((2, 9), value)).temper(tau)
        assert (one.quantile(MANY) == value).all()
        np.testing.assert_allclose(one.mean(), value, rtol=1e-15)
        assert one.cdf([value - 1e-3, value]).tolist() == [0.0, 1.0]
        np.testing.assert_allclose(one.crps(value + 2.0), 2.0)
        assert one.crps(value).tolist() == [0.0, 0.0]


def test_equal_knots_count_as_the_narrowest_gap() -> None:
    values = np.array([0.0, 1, 2, 3, 3, 4, 5, 6, 7])
    one = QuantileKnots.of(values).temper(0.5)
    ratio = one.mass[4] / one.mass[1]
    assert ratio == pytest.approx(1 / (7 * NARROWEST))
    assert one.median() == 3.0
    assert one.cdf(3.0) - one.cdf(np.nextafter(3.0, 0)) == pytest.approx(one.mass[4])


def test_a_level_that_rounding_puts_in_an_empty_tail_is_the_knot() -> None:
    mass = np.append(np.full(9, 1 / 9), 0.0)
    levels = np.append(np.arange(1, 9) / 9, 1 - 4e-16)
    one = QuantileKnots(np.arange(9.0), levels, mass, np.array(1.0), np.array(1.0))
    assert one.quantile((np.nextafter(1, 0),)) == 8.0


def test_tempering_twice_is_tempering_once() -> None:
    one = QuantileKnots.of(np.stack([UNEVEN, np.array([0.0, 0, 1, 2, 2, 4, 5, 6, 6])]))
    twice, once = one.temper(0.5).temper(0.8), one.temper(0.4)
    for name in ("mass", "levels", "lower", "upper"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-9)


def test_the_score_of_an_outcome_far_out_is_its_distance() -> None:
    one = QuantileKnots.of(UNEVEN)
    for y in (-1e6, 1e6):
        inner = one.crps(0.0)
        assert one.crps(y) == pytest.approx(abs(y - one.mean()), abs=2 * inner + 2)
    step = (one.crps(1e6 + 1) - one.crps(1e6)) / 1
    assert step == pytest.approx(1, abs=1e-6)
