"""The density between and beyond nine quantiles, against quadrature and hand counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from retrain_assets.models.toto.knots import LEVELS, NARROWEST, QuantileKnots
from retrain_assets_tests.models.toto.brute_force import knots_density

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

UNEVEN = np.array([-3.0, -1.0, -0.7, -0.6, 0.0, 0.2, 1.5, 1.9, 4.0])
MANY = (0.001, 0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.85, 0.9, 0.95, 0.999)


def power_by_quadrature(
    values: np.ndarray, tau: float, cuts: np.ndarray
) -> tuple[np.ndarray, float]:
    """Probability up to each cut of p^(1/tau), and its mean, from the density alone."""
    density = knots_density(values)

    def power(y: float) -> float:
        return float(density(np.array(y))) ** (1 / tau)

    def moment(y: float) -> float:
        return y * power(y)

    ends = np.unique([-np.inf, *values, *cuts, np.inf])
    parts = []
    for left, right in pairwise(ends):
        # Short of the right end: if that is a knot, the density there is that of the next cell.
        span = left, np.nextafter(right, -np.inf) if np.isfinite(right) else right
        parts.append([integrate.quad(f, *span, epsabs=1e-13)[0] for f in (power, moment)])
    masses, moments = np.array(parts).T
    below = masses.cumsum() / masses.sum()
    return below[np.searchsorted(ends, cuts) - 1], moments.sum() / masses.sum()


def cdf(one: QuantileKnots, y: np.ndarray) -> np.ndarray:
    """Of the cells' masses, straight between knots and exponential beyond; not at an atom."""
    below, above = one.mass[0], one.mass[-1]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        low = below * np.exp((y - one.values[0]) / one.lower)
        high = 1 - above * np.exp((one.values[-1] - y) / one.upper)
    inside = np.interp(y, one.values, one.mass.cumsum()[:-1])
    return np.select([y < one.values[0], y > one.values[-1]], [low, high], inside)


def test_the_knots_are_the_quantiles_to_the_bit() -> None:
    values = np.random.default_rng(0).normal(size=(50, 9)) * 1e5
    one = QuantileKnots.of(values)
    assert np.array_equal(one.quantile(LEVELS), np.sort(values, axis=-1).T)


def test_cells_are_uniform_and_tails_exponential() -> None:
    one = QuantileKnots.of(UNEVEN[::-1])
    assert one.quantile((0.25,))[0] == pytest.approx(-0.85)
    assert one.quantile((0.525,))[0] == pytest.approx(0.05)
    # The density at either side of an outermost knot is that of the interval.
    step = 1e-7
    around = one.quantile((0.1 - step, 0.1, 0.1 + step, 0.9 - step, 0.9, 0.9 + step))
    slopes = step / np.diff(around)[[0, 1, 3, 4]]
    assert slopes == pytest.approx([0.05, 0.05, 0.1 / 2.1, 0.1 / 2.1], rel=1e-5)
    assert one.quantile((0.1 * np.exp(-3),))[0] == pytest.approx(-3 - 3 * 2)
    assert one.quantile((1 - 0.1 * np.exp(-3),))[0] == pytest.approx(4 + 3 * 2.1)
    mean = 0.1 * ((UNEVEN[1:] + UNEVEN[:-1]).sum() / 2 + (-3 - 2) + (4 + 2.1))
    assert one.mean() == pytest.approx(mean)


@pytest.mark.parametrize("tau", [0.3, 0.6, 0.95, 1.3, 3.0])
def test_tempering_is_the_power_of_the_density(tau: float) -> None:
    tempered = QuantileKnots.of(UNEVEN).temper(tau)
    levels, mean = power_by_quadrature(UNEVEN, tau, UNEVEN)
    np.testing.assert_allclose(tempered.levels, levels, atol=1e-9)
    np.testing.assert_allclose(tempered.mass, np.diff([0, *levels, 1]), atol=1e-9)
    assert tempered.mean() == pytest.approx(mean, abs=1e-8)
    many = (levels[0] / 3, *MANY, 1 - (1 - levels[-1]) / 3)  # both tails, however thin
    found, _ = power_by_quadrature(UNEVEN, tau, tempered.quantile(many))
    np.testing.assert_allclose(found, many, rtol=1e-8)


@pytest.mark.parametrize("tau", [0.4, 1.7])
def test_a_tempered_quantile_on_a_brute_force_grid(tau: float) -> None:
    one = QuantileKnots.of(UNEVEN)
    grid = np.linspace(-120, 120, 600_001)
    density = knots_density(UNEVEN)(grid) ** (1 / tau)
    levels = np.cumsum((density[1:] + density[:-1]) / 2)
    expected = np.interp((0.02, 0.3, 0.5, 0.8, 0.97), levels / levels[-1], grid[1:])
    found = one.temper(tau).quantile((0.02, 0.3, 0.5, 0.8, 0.97))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_low_temperature_takes_the_median_to_the_densest_interval() -> None:
    one = QuantileKnots.of(UNEVEN)  # its densest interval is -.7 to -.6
    medians = [float(one.temper(tau).quantile((0.5,))[0]) for tau in (1.5, 1.0, 0.7, 0.4, 0.1)]
    assert (np.diff(medians) < 0).all()
    assert medians[1] == 0.0
    assert -0.7 < medians[-1] < -0.6


def test_even_knots_keep_their_median() -> None:
    one = QuantileKnots.of(np.arange(9.0))
    for tau in (0.3, 0.8, 2.0):
        assert one.temper(tau).quantile((0.5,))[0] == pytest.approx(4, abs=1e-12)
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
    near = 4 * np.spacing(np.abs(quantiles))
    assert (cdf(one, quantiles - near) <= np.array(MANY) + 1e-9).all()
    assert (cdf(one, quantiles + near) >= np.array(MANY) - 1e-9).all()
    assert np.isfinite(one.mean())


@pytest.mark.parametrize("value", [0.0, 1e-6, -3.0, 1e5])
def test_a_constant_series_is_its_value(value: float) -> None:
    for tau in (0.1, 1.0, 4.0):
        one = QuantileKnots.of(np.full((2, 9), value)).temper(tau)
        assert (one.quantile(MANY) == value).all()
        np.testing.assert_allclose(one.mean(), value, rtol=1e-15)


def test_equal_knots_count_as_the_narrowest_gap() -> None:
    values = np.array([0.0, 1, 2, 3, 3, 4, 5, 6, 7])
    one = QuantileKnots.of(values).temper(0.5)
    ratio = one.mass[4] / one.mass[1]
    assert ratio == pytest.approx(1 / (7 * NARROWEST))
    atom = np.array([0.501, 0.999]) * one.mass[4] + one.mass[:4].sum()
    assert one.quantile((0.5, *atom)).tolist() == [3.0] * 3


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
