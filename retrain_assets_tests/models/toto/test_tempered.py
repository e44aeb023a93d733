"""A mixture under a temperature, against quadrature of other kinds and closed forms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from retrain_assets.errors import BadInput
from retrain_assets.models.toto import tempered
from retrain_assets.models.toto.mixture import StudentMixture
from retrain_assets.models.toto.panels import Table
from retrain_assets.models.toto.predictive import MAX_TEMPERATURE, MIN_TEMPERATURE
from retrain_assets.models.toto.tempered import FINE, TemperedMixture

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
FIRST = np.arange(24) == 0
FIRST_TWO = np.arange(24) < 2


def mixture(*shape: int, seed: int = 0) -> StudentMixture:
    """24 components each, of the kind the heads give out."""
    rng = np.random.default_rng(seed)
    size = (*shape, 24)
    return StudentMixture.of(
        2 + rng.gamma(1.5, 2, size),
        rng.normal(0, 1, size),
        np.exp(rng.normal(-0.7, 0.8, size)),
        rng.normal(0, 2, size),
    )


def awkward(name: str, tau: float) -> StudentMixture:
    rng = np.random.default_rng(7)
    df, location, scale = 2 + rng.gamma(1.5, 2, 24), rng.normal(0, 1, 24), rng.gamma(2, 0.3, 24)
    weight = rng.normal(0, 2, 24)
    alone, pair = np.where(FIRST, 0.0, -80.0), np.where(FIRST_TWO, 0.0, -80.0)
    wide = np.exp(rng.uniform(-12, 0, 24))
    made: dict[str, tuple[object, ...]] = {
        "all tails as heavy as can be": (2.0, location, scale, weight),
        "nearly normal": (1e6, location, scale, weight),
        "one that counts": (df, location, scale, alone),
        "one that counts, narrow": (2.0, location, np.where(FIRST, 1e-5, scale), alone),
        "a spike on a shoulder": (df, 4.0 * FIRST, np.where(FIRST, 0.03, 1.0), pair),
        "far apart": (df, location, 1e-6 * scale, weight),
        "all scales": (df, location, wide, weight),
        "all scales, equal shares": (df, location, wide, (1 / tau - 1) * tau * np.log(wide)),
        "in prices": (df, 1e5 + location, 1e-2 * scale, weight),
    }
    return StudentMixture.of(*made[name])


AWKWARD = (
    "all tails as heavy as can be",
    "nearly normal",
    "one that counts",
    "one that counts, narrow",
    "a spike on a shoulder",
    "far apart",
    "all scales",
    "all scales, equal shares",
    "in prices",
)


def brute_force(one: StudentMixture, tau: float) -> tuple[Callable[[float], float], float]:
    """CDF and mean of p^(1/tau) by 10 Gauss nodes in each of 10,000 intervals.

    The intervals widen from each component's location by a fifth at most, out to where nothing
    is left; the mean is in units around the first location.
    """
    centre = one.location[0]
    steps = np.sinh(np.linspace(-48, 48, 421))
    place = one.location - centre
    edges = np.unique(place[:, None] + one.scale[:, None] * steps)
    nodes, weights = np.polynomial.legendre.leggauss(10)

    def within(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = (end - start)[:, None] / 2
        y = start[:, None] + half * (1 + nodes)
        total = np.zeros_like(y)
        for df, mu, sigma, log_w in zip(one.df, place, one.scale, one.log_weight, strict=True):
            z = (y - mu) / sigma
            density = stats.t.logpdf(0.0, df) - (df + 1) / 2 * np.log1p(z * z / df)
            total += np.exp(log_w - np.log(sigma) + density)
        mass = np.exp(np.log(np.maximum(total, 1e-300)) / tau) * half * weights
        return mass.sum(-1), (mass * y).sum(-1)

    masses, moments = within(edges[:-1], edges[1:])
    below = np.append(0, masses.cumsum())

    def cdf(y: float) -> float:
        at = y - centre
        cell = np.searchsorted(edges, at) - 1
        return float(
            (below[cell] + within(edges[cell : cell + 1], np.array([at]))[0][0]) / below[-1]
        )

    return cdf, float(centre + moments.sum() / below[-1])


def check(one: StudentMixture, tau: float) -> None:
    """Quantiles and mean to 1e-6 of the middle half's width.

    A quantile between two modes is as far off as its probability is from the level over a density
    of all but nothing; there the probability is what can be right.
    """
    found = one.temper(tau)
    cdf, mean = brute_force(one, tau)
    quantiles = found.quantile(LEVELS)
    width = float(quantiles[3] - quantiles[1])
    for level, quantile in zip(LEVELS, quantiles, strict=True):
        gap = abs(cdf(float(quantile)) - level)
        away = gap / np.exp(float(found.log_density(quantile)))
        assert min(gap, away / width) < 1e-6
        assert abs(float(found.cdf(quantile)) - level) < 1e-7
    assert float(found.mean()) == pytest.approx(
        mean, abs=1e-6 * max(width, abs(mean - quantiles[2]))
    )


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 1.25])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_mixtures_are_their_power(seed: int, tau: float) -> None:
    check(mixture(seed=seed), tau)


@pytest.mark.parametrize("tau", [0.1, 0.6, 1.25])
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_mixtures_are_their_power(name: str, tau: float) -> None:
    check(awkward(name, tau), tau)


@pytest.mark.parametrize("tau", [0.3, 1.25])
def test_adaptive_quadrature_agrees(tau: float) -> None:
    one = mixture(seed=3)
    found = one.temper(tau)
    quantiles = found.quantile(LEVELS)
    ends = [-np.inf, *one.quantile((0.01, 0.99)), *quantiles, np.inf]

    def power(y: float) -> float:
        return float(np.exp(one.log_density(y) / tau))

    parts = [
        [
            integrate.quad(f, *span, epsabs=1e-12, limit=300)[0]
            for f in (power, lambda y: y * power(y))
        ]
        for span in pairwise(sorted(ends))
    ]
    masses, moments = np.array(parts).T
    below = dict(zip(sorted(ends)[1:], masses.cumsum() / masses.sum(), strict=True))
    assert [below[q] for q in quantiles] == pytest.approx(LEVELS, abs=1e-9)
    width = quantiles[3] - quantiles[1]
    assert found.mean() == pytest.approx(moments.sum() / masses.sum(), abs=1e-6 * width)
    densities = [power(y) / masses.sum() for y in quantiles]
    np.testing.assert_allclose(np.exp(found.log_density(quantiles)), densities, rtol=1e-8)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 1.25])
@pytest.mark.parametrize("df", [2.0, 3.0, 50.0, 1e6])
def test_one_component_becomes_another_student(df: float, tau: float) -> None:
    one = StudentMixture.of([df], [1.0], [2.0], [0.0])
    df_then = (df + 1) / tau - 1
    reference = stats.t(df_then, 1.0, 2.0 * np.sqrt(df / df_then))
    found = one.temper(tau)
    levels = (1e-3, *LEVELS, 1 - 1e-3)
    np.testing.assert_allclose(found.quantile(levels), reference.ppf(levels), rtol=1e-7)
    y = np.array([-1e3, -4.0, 0.5, 1.0, 2.5, 1e3])
    np.testing.assert_allclose(found.cdf(y), reference.cdf(y), atol=1e-9)
    np.testing.assert_allclose(found.log_density(y), reference.logpdf(y), rtol=1e-8, atol=1e-9)
    assert found.mean() == pytest.approx(1.0, abs=1e-9)
    same = StudentMixture.of([df_then], [1.0], [2.0 * np.sqrt(df / df_then)], [0.0])
    np.testing.assert_allclose(found.crps(y), same.crps(y), rtol=1e-6)


def test_the_quadrature_finds_the_mixture_itself() -> None:
    """At 1, which `temper` never asks it for, all has another way of being known."""
    one = mixture(4, 5, seed=4)
    found = TemperedMixture(one, 1.0)
    y = np.random.default_rng(0).normal(size=(4, 5))
    np.testing.assert_allclose(found.quantile(LEVELS), one.quantile(LEVELS), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.mean(), one.mean(), rtol=0, atol=1e-7)
    for name in ("cdf", "log_density", "crps"):
        np.testing.assert_allclose(getattr(found, name)(y), getattr(one, name)(y), atol=1e-7)


def test_a_low_temperature_takes_the_median_to_the_mode() -> None:
    one = StudentMixture.of([5.0, 5.0], [-2.0, 0.5], [0.4, 1.5], np.log([0.55, 0.45]))
    grid = np.linspace(-4, 4, 8001)
    mode = grid[one.log_density(grid).argmax()]
    medians = [float(one.temper(tau).median()) for tau in (1.25, 1.0, 0.8, 0.5, 0.3, 0.1)]
    assert np.all(np.diff(np.abs(np.array(medians) - mode)) < 0)
    assert abs(medians[-1] - mode) < 0.01
    assert abs(medians[1] - mode) > 0.3


def test_tempering_again_multiplies_the_temperatures() -> None:
    one = mixture(3)
    twice = one.temper(0.5).temper(0.8)
    assert isinstance(twice, TemperedMixture)
    assert twice.parent is one
    assert np.array_equal(twice.quantile(LEVELS), one.temper(0.4).quantile(LEVELS))
    assert one.temper(0.8).temper(1.25) is one
    assert one.temper(0.9).temper(1 / 0.9) is one
    assert twice.temper(1.0) is twice


def test_temperatures_out_of_range_are_refused() -> None:
    one = mixture(2)
    for tau in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        assert np.isfinite(one.temper(tau).mean()).all()
    for tau in (0.99 * MIN_TEMPERATURE, 1.01 * MAX_TEMPERATURE, np.nan, -1.0):
        with pytest.raises(BadInput, match="temperature"):
            one.temper(tau)
    with pytest.raises(BadInput, match=r"temperature must be from 0\.1 to 1\.25"):
        one.temper(0.2).temper(0.2)
    with pytest.raises(BadInput, match=r"temperature.*not 1\.9"):
        StudentMixture.of([1.9, 3.0], [0.0, 1.0], 1.0, 0.0).temper(0.5)


def test_a_move_moves_the_mixture_underneath() -> None:
    one = mixture(2, 3)
    loc, scale = np.array([[1e5], [-3.0]]), np.array([[1e3], [1e-4]])
    first, last = one.temper(0.6).affine(loc, scale), one.affine(loc, scale).temper(0.6)
    assert np.array_equal(first.quantile(LEVELS), last.quantile(LEVELS))
    np.testing.assert_allclose(
        (first.median() - loc) / scale, one.temper(0.6).median(), rtol=1e-7, atol=1e-7
    )


def part(one: StudentMixture, rows: slice | list[int]) -> StudentMixture:
    return StudentMixture(one.df[rows], one.location[rows], one.scale[rows], one.log_weight[rows])


def test_no_element_knows_of_the_others() -> None:
    """More elements than are integrated at once, fine and coarse, and than are kept."""
    one, rng = mixture(1100), np.random.default_rng(0)
    y, uniforms = rng.normal(size=1100), rng.random((1100, 2))
    draws = one.temper(0.7).sample(uniforms)
    few = part(one, slice(0, 90)).temper(0.7)
    together = few.quantile(LEVELS), few.mean(), few.cdf(y[:90]), few.crps(y[:90])
    for rows in (slice(3, 4), slice(40, 77), slice(1, 90, 30)):
        alone = part(one, rows).temper(0.7)
        assert np.array_equal(alone.quantile(LEVELS), together[0][:, rows])
        assert np.array_equal(alone.quantile(LEVELS[1:2]), together[0][1:2, rows])
        assert np.array_equal(alone.mean(), together[1][rows])
        assert np.array_equal(alone.cdf(y[rows]), together[2][rows])
        assert np.array_equal(alone.crps(y[rows]), together[3][rows])
    for rows in (slice(5, 6), slice(200, 500), slice(0, 1100, 7)):
        assert np.array_equal(part(one, rows).temper(0.7).sample(uniforms[rows]), draws[rows])


def test_more_elements_than_are_kept_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = mixture(5)
    kept = one.temper(0.7).quantile(LEVELS)
    monkeypatch.setattr(tempered, "_KEPT", 2)
    assert np.array_equal(one.temper(0.7).quantile(LEVELS), kept)


def test_draws_are_quantiles_at_the_second_number() -> None:
    one, rng = mixture(4), np.random.default_rng(5)
    levels = np.linspace(0.005, 0.995, 199)
    for tau in (0.1, 0.5, 0.9, 1.25):
        pairs = np.stack(
            [rng.random((199, 4)), np.broadcast_to(levels[:, None], (199, 4))], axis=-1
        )
        draws, exact = one.temper(tau).sample(pairs), one.temper(tau).quantile(list(levels))
        assert (np.diff(draws, axis=0) >= 0).all()
        away = np.abs(draws - exact).mean(0)
        assert (away < 1e-2 * exact.std(0)).all()
        assert (away > 0).any()  # that is what the finer resolution is for:
        fine = TemperedMixture(one, tau, drawing=FINE).sample(pairs)
        np.testing.assert_allclose(fine, exact, rtol=1e-9, atol=1e-9)


def test_paths_share_the_table_of_their_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch (W, V, 1, P) against uniforms (W, V, R, P, 2)."""
    one, rng = mixture(2, 3, 1, 4), np.random.default_rng(0)
    uniforms = rng.random((2, 3, 10, 4, 2))
    built: list[int] = []

    class Counted(Table):
        def __init__(self, powers: object, resolution: object) -> None:
            super().__init__(powers, resolution)
            built.append(len(self.mass))

    monkeypatch.setattr(tempered, "Table", Counted)
    draws = one.temper(0.5).sample(uniforms)
    assert sum(built) == 2 * 3 * 4
    assert draws.shape == (2, 3, 10, 4)
    assert np.array_equal(one.temper(0.5).sample(uniforms[:, :, 3:4]), draws[:, :, 3:4])
    wide = part(one, [1, 1, 0])  # each element named three times
    assert np.array_equal(wide.temper(0.5).sample(uniforms[[1, 1, 0]]), draws[[1, 1, 0]])


def test_questions_broadcast_against_the_batch() -> None:
    one = mixture(2, 3).temper(0.5)
    y = np.random.default_rng(0).normal(size=(5, 1, 3))
    for ask in (one.cdf, one.crps, one.log_density):
        assert ask(y).shape == (5, 2, 3)
        np.testing.assert_array_equal(ask(y)[4], ask(y[4]))
    single = mixture().temper(0.5)
    assert single.cdf(y).shape == y.shape
    assert single.median().shape == ()
    assert single.sample([0.2, 0.5]).shape == ()
    empty = part(mixture(2), slice(0, 0)).temper(0.5)
    assert empty.quantile(LEVELS).shape == (5, 0)
    assert empty.sample(np.zeros((7, 0, 2))).shape == (7, 0)


@pytest.mark.parametrize("second", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_uniforms_draw_numbers(second: float) -> None:
    draws = mixture(50, seed=6).temper(1.25).sample([0.0, second])
    assert np.isfinite(draws).all()
    assert (np.abs(draws) < 1e15).all()


@pytest.mark.parametrize("field", ["df", "location", "scale", "log_weight"])
def test_parameters_that_are_no_numbers_stay_in_their_element(field: str) -> None:
    one = mixture(3)
    getattr(one, field)[1, 5] = np.nan
    whole = mixture(3).temper(0.7)
    broken = one.temper(0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ask in ("median", "mean"):
            found, expected = getattr(broken, ask)(), getattr(whole, ask)()
            assert np.isnan(found[1])
            assert np.array_equal(found[[0, 2]], expected[[0, 2]])
        assert np.isnan(broken.sample(np.full(2, 0.3))).tolist() == [False, True, False]


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 1.25])
def test_scales_that_vanish_are_atoms(tau: float) -> None:
    one = StudentMixture.of([2.0, 4.0], [1.0, 3.0], [1e-200, 1e-44], np.log([0.3, 0.7])).temper(tau)
    heavy = 1.0 if tau < 1 else 3.0  # of the power, all is at one of them
    assert one.quantile(LEVELS) == pytest.approx(heavy, abs=1e-12)
    assert one.mean() == pytest.approx(heavy, abs=1e-9)
    assert one.crps(2.0) == pytest.approx(1.0, abs=1e-6)
    assert one.sample([0.5, 0.4]) == pytest.approx(heavy, abs=1e-7)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    df=st.lists(st.sampled_from([2.0, 2.3, 5.0, 1e2, 1e6]), min_size=4, max_size=4),
    place=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    width=st.lists(st.sampled_from([1e-44, 1e-9, 1e-3, 1.0, 30.0]), min_size=4, max_size=4),
    weight=st.lists(st.sampled_from([0.0, -1.0, -10.0, -80.0]), min_size=4, max_size=4),
    size=st.sampled_from([1e-6, 1.0, 1e5]),
    tau=st.sampled_from([0.1, 0.4, 0.95, 1.25]),
)
def test_nothing_breaks_at_the_extremes(
    df: list[float],
    place: list[float],
    width: list[float],
    weight: list[float],
    size: float,
    tau: float,
) -> None:
    made = StudentMixture.of(df, size * np.array(place), size * np.array(width), weight)
    one = made.temper(tau)
    quantiles = one.quantile(LEVELS)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles) >= 0).all()
    # A component may be so narrow that its CDF passes a level between two neighbouring floats.
    near = 8 * np.spacing(np.abs(quantiles)) + 1e-8 * size * min(width)
    assert (one.cdf(quantiles - near) <= np.array(LEVELS) + 1e-6).all()
    assert (one.cdf(quantiles + near) >= np.array(LEVELS) - 1e-6).all()
    probes = np.append(quantiles, size)
    assert (one.crps(probes) > -1e-6 * size).all()
    assert np.isfinite(one.log_density(probes)).all()
    assert np.isfinite(one.mean())
    assert np.isfinite(one.sample([[0.5, 0.0], [0.5, 0.5], [0.5, 0.999]])).all()
