"""Medians of predictive distributions by brute force: a density on a fine grid, added up.

Nothing of `retrain_assets` is used: this is what forecasts are held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_simpson
from scipy.special import gammaln

Floats = NDArray[np.float64]

POINTS = 32_001
REACH = 12.0
"""The grid ends at sinh(REACH) = 8e4 widths from the middle, where a tail holds 1e-10."""
TAIL = 40.0
"""Mean distances after which an exponential tail ends."""
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Truth:
    """Medians (step,), and the distance of the quartiles (step,), which is the unit of errors.

    own_error: how much the medians move on a grid half as fine, in that unit, on average.
    """

    median: Floats
    width: Floats
    own_error: float

    def error(self, medians: Floats) -> float:
        """Mean absolute error of medians (step,) in quartile distances."""
        return float((np.abs(medians - self.median) / self.width).mean())


def of_mixtures(df: Floats, at: Floats, scale: Floats, weight: Floats, tau: float) -> Truth:
    """Of p^(1/tau), p a mixture of Student-T distributions; fields (step, K)."""
    found = []
    for fields in zip(df, at, scale, weight, strict=True):
        u, y, density = _mixture(*fields)
        powered = density ** (1 / tau) * np.cosh(u)
        found.append([_quartiles(u[::n], powered[::n], y[::n]) for n in (1, 2)])
    return _truth(np.array(found))


def of_knots(knots: Floats, tau: float) -> Truth:
    """Of p^(1/tau), p uniform between nine quantiles (step, 9) with exponential tails."""
    return _truth(np.array([[_knots(row, tau, n) for n in (POINTS, POINTS // 2)] for row in knots]))


def _truth(found: Floats) -> Truth:
    """From quartiles (step, 2, 3) on the fine grid and on the one half as fine."""
    fine, half = found[:, 0], found[:, 1]
    width = fine[:, 2] - fine[:, 0]
    own = float((np.abs(fine[:, 1] - half[:, 1]) / width).mean())
    return Truth(fine[:, 1], width, own)


def _mixture(
    df: Floats, at: Floats, scale: Floats, weight: Floats
) -> tuple[Floats, Floats, Floats]:
    """Nodes u, places y(u) that are dense in the middle and coarse far out, and density there."""
    centre = (weight * at).sum()
    width = np.sqrt((weight * ((at - centre) ** 2 + scale**2)).sum())
    u = np.linspace(-REACH, REACH, POINTS)
    y = centre + width * np.sinh(u)
    density = np.zeros_like(y)
    peak = weight * np.exp(gammaln((df + 1) / 2) - gammaln(df / 2)) / np.sqrt(df * np.pi) / scale
    for k in range(len(df)):
        z = (y - at[k]) / scale[k]
        density += peak[k] * np.exp(-(df[k] + 1) / 2 * np.log1p(z * z / df[k]))
    return u, y, density


def _knots(knots: Floats, tau: float, points: int) -> Floats:
    """Quartiles (3,). Every cell has its own grid, so that no jump falls inside one."""
    part = np.linspace(0, 1, points // 10)
    low, high = knots[1] - knots[0], knots[-1] - knots[-2]
    far = TAIL * part
    y = [knots[0] - low * far[::-1]]
    density = [0.1 / low * np.exp(-far[::-1])]
    for start, end in pairwise(knots):
        y.append(start + (end - start) * part)
        density.append(np.full_like(part, 0.1 / (end - start)))
    y.append(knots[-1] + high * far)
    density.append(0.1 / high * np.exp(-far))
    places, powered = np.concatenate(y), np.concatenate(density) ** (1 / tau)
    steps = np.diff(places) * (powered[1:] + powered[:-1]) / 2
    cdf = np.append(0.0, np.cumsum(steps))
    found: Floats = np.interp(QUARTILES, cdf / cdf[-1], places)
    return found


def _quartiles(u: Floats, density: Floats, y: Floats) -> Floats:
    cdf = cumulative_simpson(density, x=u, initial=0.0)
    # Simpson's rule may step back by a rounding error where nothing is.
    cdf = np.maximum.accumulate(cdf) / cdf[-1]
    found: Floats = np.interp(QUARTILES, cdf, y)
    return found
