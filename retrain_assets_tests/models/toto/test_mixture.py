"""The Student-T mixture against scipy's t, quadrature and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.mixture import StudentMixture
from retrain_assets.models.toto.student_t import mean_spread

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
DFS = (1.2, 2.0, 2.5, 4.0, 30.0, 1e3, 1e6)


def single(df: float, location: float = 0.0, scale: float = 1.0) -> StudentMixture:
    return StudentMixture.of([df], [location], [scale], [0.0])


def spread(one: StudentMixture) -> float:
    fields = (one.df, one.location, one.scale, np.exp(one.log_weight))
    return float(mean_spread(*(field.reshape(1, -1) for field in fields))[0])


@pytest.mark.parametrize("df", DFS)
def test_one_component_is_scipys_t(df: float) -> None:
    one, reference = single(df, -3.0, 0.2), stats.t(df, -3.0, 0.2)
    np.testing.assert_allclose(one.quantile(LEVELS), reference.ppf(LEVELS), rtol=1e-12)
    y = np.array([-1e3, -5.0, -3.1, -3.0, 2.0, 1e6])
    np.testing.assert_allclose(one.cdf(y), reference.cdf(y), rtol=1e-12)
    np.testing.assert_allclose(one.log_density(y), reference.logpdf(y), rtol=1e-10)
    assert one.mean() == -3.0


@pytest.mark.parametrize("df", DFS)
def test_the_score_of_one_component_is_known(df: float) -> None:
    """Jordan, Krüger and Lerch 2019, appendix A."""
    z = np.array([-40.0, -1.0, 0.0, 0.3, 5.0])
    density, below = stats.t.pdf(z, df), stats.t.cdf(z, df)
    # Beta(1/2, a) is asymptotically sqrt(pi / a); its logarithm does not cancel at a high df.
    beta = np.exp(special.betaln(0.5, df - 0.5) - 2 * special.betaln(0.5, df / 2))
    expected = z * (2 * below - 1) + 2 * density * (df + z**2) / (df - 1)
    expected -= 2 * np.sqrt(df) / (df - 1) * beta
    found = single(df, 7.0, 3.0).crps(7.0 + 3.0 * z)
    np.testing.assert_allclose(found, 3.0 * expected, rtol=1e-6)


@pytest.mark.parametrize("ratio", [1e-5, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("df", [1.5, 2.0, 2.5, 6.0, 1e4])
def test_how_far_draws_are_apart_at_unlike_scales(df: float, ratio: float) -> None:
    """Against E|X - X'| = sum of E over one component of the other's closed E|x - X'|."""
    one = StudentMixture.of([df, df + 1], [0.0, 0.7], [1.0, ratio], [np.log(0.7), np.log(0.3)])

    def away(x: np.ndarray, k: int) -> np.ndarray:
        nu, loc, scale = one.df[k], one.location[k], one.scale[k]
        z = (x - loc) / scale
        rest = 2 * stats.t.pdf(z, nu) * (nu + z**2) / (nu - 1)
        return scale * (z * (2 * stats.t.cdf(z, nu) - 1) + rest)

    def expected(outer: int, inner: int) -> float:
        # By z = sinh(t), trapezoids: spectrally accurate, and unlike the panels in every way.
        t = np.linspace(-45, 45, 20_001)
        z = np.sinh(t)
        f = stats.t.pdf(z, one.df[outer]) * np.cosh(t)
        x = one.location[outer] + one.scale[outer] * z
        return float(np.trapezoid(f * away(x, inner), t))

    total = 0.49 * expected(0, 0) + 0.09 * expected(1, 1) + 2 * 0.21 * expected(1, 0)
    assert spread(one) == pytest.approx(total / 2, rel=1e-6)


def test_quantiles_of_a_mixture_on_a_brute_force_grid() -> None:
    one = StudentMixture.of([3.0, 8.0, 2.1], [-1.0, 2.0, 0.5], [0.3, 0.5, 2.0], [0.0, -0.5, -1.0])
    parts = zip(one.df, one.location, one.scale, np.exp(one.log_weight), strict=True)
    grid = np.linspace(-60, 60, 200_001)
    levels = sum(w * stats.t.cdf(grid, df, mu, sigma) for df, mu, sigma, w in parts)
    expected = np.interp(LEVELS, levels, grid)
    np.testing.assert_allclose(one.quantile(LEVELS), expected, atol=1e-6)


def test_tails_too_heavy_for_a_mean_say_so() -> None:
    one = StudentMixture.of([0.6, 30.0], [0.0, 5.0], [1.0, 1.0], [0.0, 0.0])
    np.testing.assert_allclose(one.cdf(one.quantile(LEVELS)), LEVELS, atol=1e-12)
    for ask in (one.mean, lambda: one.crps(0.0)):
        with pytest.raises(BadInput, match=r"no mean.*0\.6 degrees"):
            ask()


def test_draws_pick_a_component_and_its_quantile() -> None:
    one = StudentMixture.of([3.0, 8.0], [-1.0, 2.0], [0.3, 0.5], np.log([0.25, 0.75]))
    pairs = np.array([[0.1, 0.3], [0.2499, 0.9], [0.2501, 0.9], [0.99, 0.5]])
    expected = [
        *(stats.t.ppf(u, 3.0, -1.0, 0.3) for u in (0.3, 0.9)),
        *(stats.t.ppf(u, 8.0, 2.0, 0.5) for u in (0.9, 0.5)),
    ]
    np.testing.assert_allclose(one.sample(pairs), expected, rtol=1e-12)


def test_draws_follow_the_distribution_and_broadcast_over_paths() -> None:
    rng = np.random.default_rng(1)
    one = StudentMixture.of(
        rng.uniform(2, 9, (2, 3, 4)), rng.normal(size=(2, 3, 4)), 0.5, rng.normal(size=(2, 3, 4))
    )
    uniforms = rng.random((4000, 2, 3, 2))
    draws = one.sample(uniforms)
    assert draws.shape == (4000, 2, 3)
    for i, j in np.ndindex(2, 3):
        levels = np.sort(one.cdf(draws)[:, i, j])
        assert np.abs(levels - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / np.sqrt(4000)
    assert np.array_equal(one.sample(uniforms[17]), draws[17])


@pytest.mark.parametrize("first", [0.0, np.nextafter(1, 0)])
@pytest.mark.parametrize("second", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_uniforms_draw_what_can_be(first: float, second: float) -> None:
    one = StudentMixture.of(
        [3.0, 3.0, 3.0, 3.0], [9e9, 0.0, 1.0, 9e9], 1.0, [-np.inf, 0.0, 0.0, -np.inf]
    )
    assert abs(one.sample([first, second])) < 1e7


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
    assert np.exp(one.log_weight).sum() == pytest.approx(1, abs=1e-12)
    quantiles = one.quantile(LEVELS)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles) >= 0).all()
    # A component may be so narrow that its CDF passes a level between two neighbouring floats.
    near = 8 * np.spacing(np.abs(quantiles))
    assert (one.cdf(quantiles - near) <= np.array(LEVELS) + 1e-9).all()
    assert (one.cdf(quantiles + near) >= np.array(LEVELS) - 1e-9).all()
    scores = one.crps(np.append(quantiles, size))
    assert (scores > 0).all()
    assert np.isfinite(one.log_density(np.append(quantiles, size))).all()


def test_scales_that_vanish_are_atoms() -> None:
    one = StudentMixture.of([2.0, 4.0], [1.0, 3.0], [0.0, 1e-44], np.log([0.3, 0.7]))
    assert one.quantile((0.1, 0.29, 0.31, 0.9)).tolist() == pytest.approx([1, 1, 3, 3], abs=1e-12)
    assert one.mean() == pytest.approx(2.4)
    expected = 0.3 * 1 + 0.7 * 1 - 0.3 * 0.7 * 2  # y = 2: E|X - y| - E|X - X'| / 2
    assert one.crps(2.0) == pytest.approx(expected, rel=1e-6)


def test_components_that_cannot_be_do_not_matter() -> None:
    plain = StudentMixture.of([3.0], [1.0], [2.0], [0.0])
    one = StudentMixture.of([3.0, 5.0], [1.0, -9.0], [2.0, 0.1], [0.0, -np.inf])
    np.testing.assert_allclose(one.quantile(LEVELS), plain.quantile(LEVELS), rtol=1e-12)
    assert one.crps(0.3) == pytest.approx(float(plain.crps(0.3)), rel=1e-6)


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
        assert one.temper(tau).median() == pytest.approx(offset, abs=1e-12)
        assert one.temper(tau).mean() == pytest.approx(offset, abs=1e-12)


def test_parameters_broadcast_before_weights_are_shared_out() -> None:
    one = StudentMixture.of(3.0, np.arange(6.0).reshape(2, 3), 1.0, 0.0)
    np.testing.assert_allclose(np.exp(one.log_weight), np.full((2, 3), 1 / 3), rtol=1e-15)
    np.testing.assert_allclose(one.mean(), [1.0, 4.0], rtol=1e-15)
