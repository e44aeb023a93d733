"""Powers of mixtures' densities, p(y)^(1/tau), at points and at the edges of panels.

Only numpy's elementwise functions, sums along a row and sums term by term are used here and in
`panels`, so what an element gets does not depend on how many there are.

Axes: n elements, K components, E edges, q points of an element.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrain_assets.models.toto.predictive import Floats, log_shares
from retrain_assets.models.toto.student_t import log_peak

Narrow = NDArray[np.floating[Any]]
"""float32 where draws alone are wanted, else float64."""

_NARROW = 1e-9
"""Components below this share of their distance from the centre count as this wide."""

_NARROWEST = 1e-12
"""The same, of the distance and width of all components: what float64 can place."""

_MOST_DF = 16.0
"""From here on a density falls within fewer scales than its pole is away."""


class Resolution(NamedTuple):
    """How finely a power is integrated.

    heights: v of the levels exp(-v^2 / 2) at which a tempered component has edges. warmest: below
    these temperatures an edge moves no further in, since on another component's shoulder a flank
    decays as if it were not tempered. far: logarithms of the edges beyond all components', in
    units of the outermost. nodes: Gauss-Lobatto nodes of a panel. steps: of Newton's method.
    drawing: for draws alone, with the components' densities in float32 and without moments.
    """

    heights: tuple[float, ...]
    warmest: tuple[float, ...]
    far: tuple[float, ...]
    nodes: int
    steps: int
    drawing: bool = False

    def points(self, components: int) -> int:
        """How often the density of an element is taken."""
        return 2 * (len(self.heights) * components + len(self.far)) * (self.nodes - 1)


class Powers:
    """p^(1/tau) of n mixtures around each one's centre (n, 1), a component's highest peak as 1.

    Parameters (n, K) as those of `StudentMixture`.
    """

    def __init__(
        self,
        df: Floats,
        location: Floats,
        scale: Floats,
        log_weight: Floats,
        *,
        tau: float,
        drawing: bool,
    ) -> None:
        self.tau = tau
        self._kind: type[np.float32 | np.float64] = np.float32 if drawing else np.float64
        # What each component would weigh if it were alone. It chooses units, not results.
        share = np.exp(log_shares(log_weight / tau + (1 - 1 / tau) * np.log(scale)))
        self.centre = _weighted_median(location, share)
        offset = location - self.centre
        breadth = np.ascontiguousarray(share * (np.abs(offset) + scale)).sum(-1, keepdims=True)
        # A component too narrow to place is widened in such a way that its power keeps its mass.
        wide = np.maximum(scale, np.maximum(_NARROW * np.abs(offset), _NARROWEST * breadth))
        height = log_weight + log_peak(df, wide) + (tau - 1) * np.log(scale / wide)
        unit = height.max(-1, keepdims=True)
        # Beyond this 1 + z^2 / df has too few digits, and the normal distribution is as near.
        df = np.minimum(df, 1e-3 / np.finfo(self._kind).eps)
        self._df, self._wide, self._offset, self._breadth = df, wide, offset, breadth
        self._place, self._per_unit = (
            _by_component(part) for part in (offset, 1 / (wide * np.sqrt(df)))
        )
        pole = np.minimum(1.0, np.sqrt(_MOST_DF / df))
        self._height, self._exponent, self._pole, self._nearness = (
            _by_component(part).astype(self._kind)
            for part in (height - unit, -(df + 1) / 2, pole, breadth / wide / np.sqrt(df))
        )

    def __call__(self, y: Floats) -> Floats:
        """p^(1/tau) at y (..., n, q), measured from the centres."""
        total: Narrow = np.zeros(y.shape, self._kind)
        for k in range(len(self._place)):
            total += self._density(k, self._standard(k, y))
        return self._power(total)

    def at_edges(self, edges: Floats) -> tuple[Floats, Floats]:
        """p^(1/tau) at the edges (n, E), and its reach: how far from each it stays alike.

        That is the distance of the complex pole of the component that the density there belongs
        to; of several, the harmonic mean by their parts.
        """
        total: Narrow = np.zeros(edges.shape, self._kind)
        nearness: Narrow = np.zeros(edges.shape, self._kind)
        for k in range(len(self._place)):
            z = self._standard(k, edges)
            away = np.abs(z)
            away += self._pole[k]
            part = self._density(k, z)
            total += part
            part /= away
            part *= self._nearness[k]
            nearness += part
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            reach = np.where(nearness == 0, np.abs(edges), self._breadth * (total / nearness))
        reach *= min(1.0, self.tau**0.5)
        return self._power(total), np.maximum(reach, np.finfo(np.float64).tiny)

    def edges(self, resolution: Resolution) -> Floats:
        """Ends of the panels, ascending, (n, E)."""
        heights = np.array(resolution.heights)
        falls = np.maximum(self.tau, np.array(resolution.warmest)) * heights * heights
        df, offset = self._df[..., None], self._offset[..., None]
        away = self._wide[..., None] * np.sqrt(df * np.expm1(falls / (df + 1)))
        near = np.concatenate([offset - away, offset + away], axis=-1).reshape(len(df), -1)
        far = np.abs(near).max(-1, keepdims=True) * np.exp(np.array(resolution.far))
        return np.sort(np.concatenate([-far, near, far], axis=-1), axis=-1)

    def _standard(self, k: int, y: Floats) -> Narrow:
        """y's distance from component k, in units of its scale and the root of its df."""
        # In float64 up to here: float32 does not tell a narrow component from its neighbourhood.
        away = y - self._place[k]
        away *= self._per_unit[k]
        with np.errstate(over="ignore"):
            standard: Narrow = away.astype(self._kind, copy=False)
        return standard

    def _density(self, k: int, z: Narrow) -> Narrow:
        """Density of component k at such a distance, written over it."""
        with np.errstate(over="ignore"):
            z *= z
        z += 1
        np.log(z, out=z)
        z *= self._exponent[k]
        z += self._height[k]
        return np.exp(z, out=z)

    def _power(self, density: Narrow) -> Floats:
        with np.errstate(divide="ignore"):
            logs = np.log(density).astype(np.float64, copy=False)
        power: Floats = np.exp(logs / self.tau)
        return power


def _weighted_median(values: Floats, weights: Floats) -> Floats:
    """The value of each row (n, K) up to which half of the weight is, (n, 1)."""
    order = np.argsort(values, axis=-1)
    total = np.take_along_axis(weights, order, axis=-1).cumsum(-1)
    middle = (total[:, :-1] < total[:, -1:] / 2).sum(-1, keepdims=True)
    median: Floats = np.take_along_axis(values, np.take_along_axis(order, middle, -1), -1)
    return median


def _by_component(values: Floats) -> Floats:
    """(n, K) -> (K, n, 1), each component in one piece of memory."""
    return np.ascontiguousarray(values.T)[..., None]
