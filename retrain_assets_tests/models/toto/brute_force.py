"""Powers of densities, added up on fine grids: what the predictive distributions are held against.

Nothing of the package is used but the fields that a density is defined by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from retrain_assets.models.toto.mixture import StudentMixture

Density = Callable[[np.ndarray], np.ndarray]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)


class Power:
    """density^(1/tau), renormalised, by 10 Gauss nodes in each interval between ascending edges.

    The density is smooth within an interval and nothing beyond the outermost ones. What it takes,
    and the edges, are measured from `centre`, all else is not.
    """

    def __init__(self, density: Density, edges: np.ndarray, tau: float, centre: float) -> None:
        self._density, self._edges, self._tau, self._centre = density, edges, tau, centre
        masses, moments = self._within(edges[:-1], edges[1:])
        self._below = np.append(0, masses.cumsum())
        self.mean = float(centre + moments.sum() / self._below[-1])

    def cdf(self, y: float) -> float:
        at = np.array([y - self._centre])
        cell = int(np.searchsorted(self._edges, at[0])) - 1
        part = self._within(self._edges[cell : cell + 1], at)[0][0]
        return float((self._below[cell] + part) / self._below[-1])

    def _within(self, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mass and first moment of each interval."""
        half = (end - start)[:, None] / 2
        at = start[:, None] + half * (1 + NODES)
        power = np.exp(np.log(np.maximum(self._density(at), 1e-300)) / self._tau)
        mass = power * half * WEIGHTS
        return mass.sum(-1), (mass * at).sum(-1)


def of_mixture(one: StudentMixture, tau: float) -> Power:
    """Of one element. The intervals widen from each component's location by a fifth at most."""
    centre = float(one.location[0])
    place = one.location - centre

    def density(at: np.ndarray) -> np.ndarray:
        total = np.zeros_like(at)
        for df, mu, sigma, log_w in zip(one.df, place, one.scale, one.log_weight, strict=True):
            z = (at - mu) / sigma
            fall = (df + 1) / 2 * np.log1p(z * z / df)
            total += np.exp(log_w - np.log(sigma) + stats.t.logpdf(0.0, df) - fall)
        return total

    edges = np.unique(place[:, None] + one.scale[:, None] * np.sinh(np.linspace(-48, 48, 421)))
    return Power(density, edges, tau, centre)


def knots_density(values: np.ndarray) -> Density:
    """A tenth of the mass even in each interval; tails that go on from the outermost ones."""
    gaps = np.diff(values)

    def density(y: np.ndarray) -> np.ndarray:
        beyond = np.maximum((values[0] - y) / gaps[0], (y - values[-1]) / gaps[-1])
        cell = np.clip(np.searchsorted(values, y, side="right") - 1, 0, 7)
        return np.asarray(0.1 / gaps[cell] * np.exp(-np.maximum(beyond, 0)))

    return density


def of_knots(values: np.ndarray, tau: float) -> Power:
    """Of one element, ascending and no two equal."""
    tail = np.linspace(0, 40 * max(tau, 1), 201)[1:]
    low = values[0] - (values[1] - values[0]) * tail[::-1]
    high = values[-1] + (values[-1] - values[-2]) * tail
    return Power(knots_density(values), np.concatenate([low, values, high]), tau, 0.0)
