"""The Student-T distribution: its functions, and how far two draws of a mixture are apart.

scipy is imported where it is used, since this layer is also read where there is none.
"""

from __future__ import annotations

import numpy as np

from retrain_assets.models.toto.predictive import Floats

_BREAKS = np.array([1.5, 4.0, 10.0, 30.0, 100.0, 400.0, 2000.0, 10000.0])
"""Where a component's CDF is cut into panels: scales from its location, on either side."""

_FAR_BREAKS = 4.0 ** np.arange(9)
"""Where the tails beyond all components' panels are cut: ranges of those panels."""

_NODES = 8
"""Gauss-Legendre nodes of a panel."""

_NARROWEST = 1e-9
"""Components below this share of the mixture's width count as this wide in the quadrature."""

_ROWS = 64  # mixtures at once, so that the arrays stay in the processor's cache


def student_cdf(df: Floats, z: Floats) -> Floats:
    """Probability of at most z under a standard Student-T."""
    from scipy.special import stdtr

    return np.asarray(stdtr(df, z), dtype=np.float64)


def student_quantile(df: Floats, level: Floats) -> Floats:
    """The standard Student-T's quantile."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(df, level), dtype=np.float64)


def log_peak(df: Floats, scale: Floats) -> Floats:
    """Logarithm of a Student-T's density at its mode."""
    from scipy.special import poch

    # A quotient of gamma functions as one function: their logarithms would cancel at a high df.
    peak: Floats = np.log(poch(df / 2, 0.5)) - np.log(df * np.pi) / 2 - np.log(scale)
    return peak


def log_excess(df: Floats, z: Floats) -> Floats:
    """log(1 + z^2 / df), without overflow."""
    with np.errstate(divide="ignore"):
        excess: Floats = np.logaddexp(0.0, 2 * np.log(np.abs(z)) - np.log(df))
    return excess


def mean_shortfall(df: Floats, scale: Floats, offset: Floats) -> Floats:
    """E max(y - X, 0) of a Student-T, y at `offset` from its location; df above 1.

    The integral of F up to y, offset F(z) + scale f(z) (df + z^2) / (df - 1) with z = offset /
    scale (after Jordan, Krüger and Lerch 2019, appendix A). Hence E|X - y| is twice it less
    offset.
    """
    with np.errstate(over="ignore"):
        z = offset / scale
    # f(z) (df + z^2) in one exponential, which is right where z^2 would overflow.
    log_rest = log_peak(df, np.ones_like(df)) + np.log(df) + (1 - df) / 2 * log_excess(df, z)
    shortfall: Floats = offset * student_cdf(df, z) + scale * np.exp(log_rest) / (df - 1)
    return shortfall


def mean_spread(df: Floats, location: Floats, scale: Floats, weight: Floats) -> Floats:
    """E|X - X'| / 2 of two draws of each mixture (n, K), df above 1, weights that sum to 1; (n,).

    It is the integral of F (1 - F). No closed form is known for components of different df, so
    this is a quadrature on panels that fit every component, off by less than 1e-6 of the result
    (1e-7 is the most found from df 1.5 up, with scales up to e^12 apart).
    """
    blocks = [slice(first, first + _ROWS) for first in range(0, len(df), _ROWS)]
    parts = [_mean_spread(df[b], location[b], scale[b], weight[b]) for b in blocks]
    return np.concatenate([*parts, np.empty(0)])


def _mean_spread(df: Floats, location: Floats, scale: Floats, weight: Floats) -> Floats:
    centre = (weight * location).sum(-1, keepdims=True)
    location = location - centre
    width = (weight * (scale + np.abs(location))).sum(-1, keepdims=True)
    location, scale = location / width, np.maximum(scale / width, _NARROWEST)
    edges = _edges(location, scale)
    lengths = np.diff(edges)  # (n, panel)
    share = (np.polynomial.legendre.leggauss(_NODES)[0] + 1) / 2
    integrate = collocation(share)
    at = [edges[:, :-1] + part * lengths for part in share]
    density = [_density(x, df, location, scale, weight) for x in at]

    # Within a panel F rises by the integral of the polynomial through the density, of which the
    # last row of `integrate` is the whole. F is added up from the left end and 1 - F from the
    # right, so that either tail has digits where it is small.
    *rises, whole = [weighted(row, density) * lengths for row in integrate]
    ends = (edges[:, :1] - location) / scale, (location - edges[:, -1:]) / scale
    first, last = ((weight * student_cdf(df, z)).sum(-1, keepdims=True) for z in ends)
    before = np.cumsum(np.concatenate([first, whole], axis=1), axis=1)[:, :-1]
    after = np.cumsum(np.concatenate([last, whole[:, ::-1]], axis=1), axis=1)[:, -2::-1]
    products = [(before + rise) * (after + (whole - rise)) for rise in rises]
    spread = weighted(integrate[-1], products) * lengths

    # Beyond the panels the square of the smaller probability is nothing, and its integral closed.
    below = mean_shortfall(df, scale, edges[:, :1] - location)
    above = mean_shortfall(df, scale, location - edges[:, -1:])
    outside = (weight * (below + above)).sum(-1)
    result: Floats = width[:, 0] * (spread.sum(-1) + outside)
    return result


def _edges(location: Floats, scale: Floats) -> Floats:
    """Ends of the panels of each mixture, ascending, (n, edge)."""
    steps = np.concatenate([-_BREAKS[::-1], [0.0], _BREAKS])
    near = (location[..., None] + scale[..., None] * steps).reshape(len(location), -1)
    low, high = near.min(-1, keepdims=True), near.max(-1, keepdims=True)
    far = (high - low) * _FAR_BREAKS
    return np.sort(np.concatenate([low - far, near, high + far], axis=1), axis=1)


def collocation(nodes: Floats) -> Floats:
    """Weights that integrate a function of values at nodes in [0, 1] from 0 to each, and to 1."""
    basis = np.polynomial.legendre.legvander(2 * nodes - 1, len(nodes) - 1)
    antiderivatives = np.polynomial.legendre.legint(np.eye(len(nodes)), lbnd=-1) / 2
    ends = np.append(2 * nodes - 1, 1.0)
    integrals = np.polynomial.legendre.legval(ends, antiderivatives).T
    weights: Floats = integrals @ np.linalg.inv(basis)
    return weights


def _density(x: Floats, df: Floats, location: Floats, scale: Floats, weight: Floats) -> Floats:
    """Density of each mixture at x (n, point). One component at a time, which saves memory."""
    peak = weight * np.exp(log_peak(df, scale))
    total = np.zeros_like(x)
    for k in range(df.shape[1]):
        z = (x - location[:, k, None]) / scale[:, k, None]
        shape = np.log1p(z * z / df[:, k, None])
        total += peak[:, k, None] * np.exp(-(df[:, k, None] + 1) / 2 * shape)
    return total


def weighted(weights: Floats, arrays: list[Floats]) -> Floats:
    """Sum of arrays by weight, each element in the same order (a matrix product has no order)."""
    total: Floats = weights[0] * arrays[0]
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        total = total + weight * array
    return total
