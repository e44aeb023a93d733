"""A mixture under a temperature, against quadrature of other kinds and closed forms."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from retrain_assets.errors import BadInput
from retrain_assets.models.toto import tempered
from retrain_assets.models.toto.mixture import StudentMixture
from retrain_assets.models.toto.panels import Table
from retrain_assets.models.toto.predictive import MAX_TEMPERATURE, MIN_TEMPERATURE
from retrain_assets.models.toto.tempered import FINE, TemperedMixture
from retrain_assets_tests.models.toto import brute_force

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


def density(one: StudentMixture, y: float | np.ndarray) -> np.ndarray:
    """Of one element, after scipy."""
    parts = stats.t.pdf(np.asarray(y)[..., None], one.df, one.location, one.scale)
    return np.asarray((np.exp(one.log_weight) * parts).sum(-1))


def check(one: StudentMixture, tau: float) -> None:
    """Quantiles have their probabilities to 1e-7; the mean is as exact, beside the middle half.

    Where it lies further from the median than that is wide, beside its distance.
    """
    found, truth = one.temper(tau), brute_force.of_mixture(one, tau)
    quantiles = found.quantile(LEVELS)
    levels = [truth.cdf(quantile) for quantile in quantiles]
    np.testing.assert_allclose(levels, LEVELS, rtol=0, atol=1e-7)
    unit = max(quantiles[3] - quantiles[1], abs(truth.mean - quantiles[2]))
    assert found.mean() == pytest.approx(truth.mean, abs=1e-7 * unit)


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
        return float(density(one, y)) ** (1 / tau)

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


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 1.25])
@pytest.mark.parametrize("df", [2.0, 3.0, 50.0, 1e6])
def test_one_component_becomes_another_student(df: float, tau: float) -> None:
    one = StudentMixture.of([df], [1.0], [2.0], [0.0])
    df_then = (df + 1) / tau - 1
    reference = stats.t(df_then, 1.0, 2.0 * np.sqrt(df / df_then))
    found = one.temper(tau)
    levels = (1e-3, *LEVELS, 1 - 1e-3)
    np.testing.assert_allclose(found.quantile(levels), reference.ppf(levels), rtol=1e-7)
    assert found.mean() == pytest.approx(1.0, abs=1e-9)


def test_the_quadrature_finds_the_mixture_itself() -> None:
    """At 1, which `temper` never asks it for, all has another way of being known."""
    one = mixture(4, 5, seed=4)
    found = TemperedMixture(one, 1.0)
    np.testing.assert_allclose(found.quantile(LEVELS), one.quantile(LEVELS), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.mean(), one.mean(), rtol=0, atol=1e-7)


def test_a_low_temperature_takes_the_median_to_the_mode() -> None:
    one = StudentMixture.of([5.0, 5.0], [-2.0, 0.5], [0.4, 1.5], np.log([0.55, 0.45]))
    grid = np.linspace(-4, 4, 8001)
    mode = grid[density(one, grid).argmax()]
    taus = (1.25, 1.0, 0.8, 0.5, 0.3, 0.1)
    medians = [float(one.temper(tau).quantile((0.5,))[0]) for tau in taus]
    assert np.all(np.diff(np.abs(np.array(medians) - mode)) < 0)
    assert abs(medians[-1] - mode) < 0.01
    assert abs(medians[1] - mode) > 0.3


def test_temperatures_out_of_range_are_refused() -> None:
    one = mixture(2)
    for tau in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        assert np.isfinite(one.temper(tau).mean()).all()
    for tau in (0.99 * MIN_TEMPERATURE, 1.01 * MAX_TEMPERATURE, np.nan, -1.0):
        with pytest.raises(BadInput, match="temperature"):
            one.temper(tau)
    with pytest.raises(BadInput, match=r"temperature must be from 0\.1 to 1\.25"):
        one.temper(0.04)
    with pytest.raises(BadInput, match=r"temperature.*not 1\.9"):
        StudentMixture.of([1.9, 3.0], [0.0, 1.0], 1.0, 0.0).temper(0.5)


def part(one: StudentMixture, rows: slice | list[int]) -> StudentMixture:
    return StudentMixture(one.df[rows], one.location[rows], one.scale[rows], one.log_weight[rows])


def test_no_element_knows_of_the_others() -> None:
    """More elements than are integrated at once, fine and coarse, and than are kept."""
    one, uniforms = mixture(1100), np.random.default_rng(0).random(1100)
    draws = one.temper(0.7).sample(uniforms)
    few = part(one, slice(0, 90)).temper(0.7)
    together = few.quantile(LEVELS), few.mean()
    for rows in (slice(3, 4), slice(40, 77), slice(1, 90, 30)):
        alone = part(one, rows).temper(0.7)
        assert np.array_equal(alone.quantile(LEVELS), together[0][:, rows])
        assert np.array_equal(alone.quantile(LEVELS[1:2]), together[0][1:2, rows])
        assert np.array_equal(alone.mean(), together[1][rows])
    for rows in (slice(5, 6), slice(200, 500), slice(0, 1100, 7)):
        assert np.array_equal(part(one, rows).temper(0.7).sample(uniforms[rows]), draws[rows])


def test_more_elements_than_are_kept_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = mixture(5)
    kept = one.temper(0.7).quantile(LEVELS)
    monkeypatch.setattr(tempered, "_KEPT", 2)
    assert np.array_equal(one.temper(0.7).quantile(LEVELS), kept)


def test_draws_are_quantiles_at_the_uniform_numbers() -> None:
    one, levels = mixture(4), np.linspace(0.005, 0.995, 199)
    for tau in (0.1, 0.5, 0.9, 1.25):
        draws = one.temper(tau).sample(levels[:, None])
        exact = one.temper(tau).quantile(list(levels))
        assert (np.diff(draws, axis=0) >= 0).all()
        away = np.abs(draws - exact).mean(0)
        assert (away < 1e-2 * exact.std(0)).all()
        assert (away > 0).any()  # that is what the finer resolution is for:
        fine = TemperedMixture(one, tau, drawing=FINE).sample(levels[:, None])
        np.testing.assert_allclose(fine, exact, rtol=1e-9, atol=1e-9)


def test_paths_share_the_table_of_their_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch (W, V, 1, P) against uniforms (W, V, R, P)."""
    one, rng = mixture(2, 3, 1, 4), np.random.default_rng(0)
    uniforms = rng.random((2, 3, 10, 4))
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


def test_draws_broadcast_against_the_batch() -> None:
    one = mixture(2, 3).temper(0.5)
    uniforms = np.random.default_rng(0).random((5, 1, 3))
    draws = one.sample(uniforms)
    assert draws.shape == (5, 2, 3)
    np.testing.assert_array_equal(draws[4], one.sample(uniforms[4]))
    single = mixture().temper(0.5)
    assert single.sample(uniforms).shape == uniforms.shape
    assert single.quantile(LEVELS).shape == (5,)
    assert single.mean().shape == single.sample(0.5).shape == ()
    empty = part(mixture(2), slice(0, 0)).temper(0.5)
    assert empty.quantile(LEVELS).shape == (5, 0)
    assert empty.mean().shape == (0,)
    assert empty.sample(np.zeros((7, 0))).shape == (7, 0)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_uniforms_draw_numbers(uniform: float) -> None:
    draws = mixture(50, seed=6).temper(1.25).sample(uniform)
    assert np.isfinite(draws).all()
    assert (np.abs(draws) < 1e15).all()


def test_a_uniform_number_of_0_counts_as_half_of_the_least_that_is_drawn() -> None:
    one = mixture(5).temper(0.7)
    assert np.array_equal(one.sample(0.0), one.sample(2.0**-54))


@pytest.mark.parametrize("field", ["df", "location", "scale", "log_weight"])
def test_parameters_that_are_no_numbers_stay_in_their_element(field: str) -> None:
    one = mixture(3)
    getattr(one, field)[1, 5] = np.nan
    whole = mixture(3).temper(0.7)
    broken = one.temper(0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found, expected in (
            (broken.quantile((0.5,))[0], whole.quantile((0.5,))[0]),
            (broken.mean(), whole.mean()),
            (broken.sample(0.3), whole.sample(0.3)),
        ):
            assert np.isnan(found[1])
            assert np.array_equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 1.25])
def test_scales_that_vanish_are_atoms(tau: float) -> None:
    one = StudentMixture.of([2.0, 4.0], [1.0, 3.0], [1e-200, 1e-44], np.log([0.3, 0.7])).temper(tau)
    heavy = 1.0 if tau < 1 else 3.0  # of the power, all is at one of them
    assert one.quantile(LEVELS) == pytest.approx(heavy, abs=1e-12)
    assert one.mean() == pytest.approx(heavy, abs=1e-9)
    assert one.sample(0.4) == pytest.approx(heavy, abs=1e-7)


@pytest.mark.parametrize("tau", [0.5, 0.9, 1.25])
@pytest.mark.parametrize("narrow", [1e-9, 1e-20, 1e-44])
def test_an_atom_within_a_wide_component_keeps_the_mass_of_its_power(
    tau: float, narrow: float
) -> None:
    """Each becomes another Student-T, as if alone: where one is, the other is all but nothing."""
    df, place, scale = np.array([3.0, 9.0]), np.array([0.0, 0.5]), np.array([1.0, narrow])
    one = StudentMixture.of(df, place, scale, (1 - tau) * np.log(scale))  # alike in their power
    df_then = (df + 1) / tau - 1
    then = stats.t(df_then, place, scale * np.sqrt(df / df_then))
    logs = (one.log_weight + stats.t.logpdf(place, df, place, scale)) / tau - then.logpdf(place)
    wide, atom = special.softmax(logs)
    below, above = wide * then.cdf(0.5)[0], wide * then.sf(0.5)[0]
    found = one.temper(tau)
    levels = (below / 2, below + 0.01 * atom, below + 0.99 * atom, 1 - above / 2)
    expected = [then.ppf(below / 2 / wide)[0], 0.5, 0.5, then.isf(above / 2 / wide)[0]]
    np.testing.assert_allclose(found.quantile(levels), expected, atol=3e-4)
    assert found.mean() == pytest.approx(0.5 * atom, abs=3e-4)


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
    # A component that is narrower than a billionth of its distance from the others is widened.
    near = 8 * np.spacing(np.abs(quantiles)) + 1e-8 * size
    if min(width) > 1e-44:  # which no grid would see
        truth = brute_force.of_mixture(made, tau)
        for level, quantile, little in zip(LEVELS, quantiles, near, strict=True):
            assert truth.cdf(quantile - little) <= level + 1e-6
            assert truth.cdf(quantile + little) >= level - 1e-6
        unit = max(quantiles[3] - quantiles[1], abs(truth.mean - quantiles[2]), 1e-8 * size)
        assert one.mean() == pytest.approx(truth.mean, abs=1e-6 * unit)
    assert np.isfinite(one.mean())
    assert np.isfinite(one.sample([0.0, 0.5, 0.999])).all()
