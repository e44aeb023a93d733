"""Integrals of powers of mixtures' densities over panels, and what follows from them.

The edges of the panels are where any component's density falls to given heights. Within a panel
the variable is stretched at either end as far as the density there is peaked, so that the
integrand is smooth in it, whether the panel is the top of a component, its tail under another's
shoulder or the space between two. Nothing is random and nothing adapts to a tolerance: an element
takes the same steps in any company.

Axes: n elements, E edges and P = E - 1 panels, q questions to an element, m nodes.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrain_assets.models.toto.powers import Powers, Resolution
from retrain_assets.models.toto.predictive import Floats

Indices = NDArray[np.intp]


class Panels(NamedTuple):
    """Panels, each with its variable s from 0 to 1; all parts of one shape.

    start, end, length: in the units of y. left, right: the reach at either end. With
    u = log((y - start + left) / (end - y + right)), s is u from its least value to its greatest,
    `stretch` apart.
    """

    start: Floats
    end: Floats
    length: Floats
    left: Floats
    right: Floats
    stretch: Floats

    @classmethod
    def between(cls, edges: Floats, reach: Floats) -> Panels:
        """The panels between neighbouring edges, both (n, E)."""
        length, left, right = np.diff(edges), reach[:, :-1], reach[:, 1:]
        stretch = np.log1p(length / left) + np.log1p(length / right)
        return cls(edges[:, :-1], edges[:, 1:], length, left, right, stretch)

    def take(self, index: Indices) -> Panels:
        """Those of these numbers (n, q)."""
        return Panels(*(_pick(part, index) for part in self))

    def at(self, s: Floats) -> tuple[Floats, Floats]:
        """y at s, and its derivative dy / ds."""
        grown, to_grow = np.exp(s * self.stretch), np.exp((1 - s) * self.stretch)
        ratio = self.left / (self.length + self.right) * grown
        part = 1 / (1 + ratio)
        slope = self.stretch * (self.length + self.left + self.right) * part * (ratio * part)
        # From the nearer end, which may be far nearer than the other end can tell.
        from_start = self.start + self.left * (grown - 1) * part
        from_end = self.end - self.right * (to_grow - 1) * (ratio * part)
        return np.where(ratio < 1, from_start, from_end), slope

    def slopes(self) -> tuple[Floats, Floats]:
        """dy / ds at both ends."""
        per_unit = self.stretch / (self.length + self.left + self.right)
        return (
            per_unit * self.left * (self.length + self.right),
            per_unit * self.right * (self.length + self.left),
        )


class Table:
    """The power of n mixtures, integrated.

    mass: its integral (n, 1), in units of `powers`. mean: (n,), unless it is for drawing.
    """

    def __init__(self, powers: Powers, resolution: Resolution) -> None:
        self.powers, self._steps = powers, resolution.steps
        self._nodes, self._whole = _rule(resolution.nodes)
        self._edges = powers.edges(resolution)
        self._density, reach = powers.at_edges(self._edges)
        self._panels = Panels.between(self._edges, reach)
        y, inner = self._panels.at(self._nodes[1:-1, None, None])
        first, last = self._panels.slopes()
        slopes = [first, *inner, last]
        values = [self._density[:, :-1], *powers(y), self._density[:, 1:]]
        values = [value * slope for value, slope in zip(values, slopes, strict=True)]
        self._below = _summed(_weighted(self._whole, values))
        self.mass = self._below[:, -1:]
        if not resolution.drawing:
            places = [self._edges[:, :-1], *y, self._edges[:, 1:]]
            moments = [value * place for value, place in zip(values, places, strict=True)]
            moment = _summed(_weighted(self._whole, moments))[:, -1]
            self.mean = powers.centre[:, 0] + moment / self.mass[:, 0]

    def quantile(self, level: Floats) -> Floats:
        """Where the CDF has these values, (n, q): Newton's method, kept within brackets."""
        want = level * self.mass
        index = np.clip(_count(self._below, want) - 1, 0, self._edges.shape[1] - 2)
        panels, below = self._panels.take(index), _pick(self._below, index)
        want, whole = want - below, _pick(self._below, index + 1) - below
        first, last = panels.slopes()
        first = first * _pick(self._density, index)
        s = _guess(first, last * _pick(self._density, index + 1), want, whole)
        best, least = s, np.full_like(s, np.inf)
        low, high = np.zeros_like(s), np.ones_like(s)
        for _ in range(self._steps):
            y, slope = panels.at(self._nodes[1:, None, None] * s)
            density = self.powers(y) * slope
            excess = s * _weighted(self._whole, [first, *density]) - want
            # The nearest so far, since rounding can send a step that has arrived elsewhere.
            best, least = np.where(np.abs(excess) < least, s, best), np.fmin(np.abs(excess), least)
            low, high = np.where(excess < 0, s, low), np.where(excess < 0, high, s)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                s = s - excess / density[-1]
            s = np.where((s >= low) & (s <= high), s, (low + high) / 2)
        quantile: Floats = self.powers.centre + panels.at(best)[0]
        return quantile


@cache
def _rule(nodes: int) -> tuple[Floats, Floats]:
    """Gauss-Lobatto nodes on [0, 1], both ends among them, and their weights."""
    inner = np.polynomial.legendre.Legendre.basis(nodes - 1).deriv().roots().astype(np.float64)
    rule: Floats = np.concatenate([[0.0], (np.sort(inner) + 1) / 2, [1.0]])
    # Those of the whole interval are the last row, which by itself would round otherwise.
    return rule, _collocation(rule)[-1]


def _collocation(nodes: Floats) -> Floats:
    """Weights that integrate a function of values at nodes in [0, 1] from 0 to each, and to 1."""
    basis = np.polynomial.legendre.legvander(2 * nodes - 1, len(nodes) - 1)
    antiderivatives = np.polynomial.legendre.legint(np.eye(len(nodes)), lbnd=-1) / 2
    ends = np.append(2 * nodes - 1, 1.0)
    integrals = np.polynomial.legendre.legval(ends, antiderivatives).T
    weights: Floats = integrals @ np.linalg.inv(basis)
    return weights


def _weighted(weights: Floats, arrays: list[Floats]) -> Floats:
    """Sum of arrays by weight, each element in the same order (a matrix product has no order)."""
    total: Floats = weights[0] * arrays[0]
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        total = total + weight * array
    return total


def _guess(first: Floats, last: Floats, want: Floats, whole: Floats) -> Floats:
    """Where a density that is exponential between its ends has this part of its whole."""
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip(want / whole, 0.0, 1.0)
        rate = np.clip(np.nan_to_num(np.log(last / first)), -50.0, 50.0)
        curved = np.log1p(part * np.expm1(rate)) / rate
    guess = np.where(np.abs(rate) < 1e-3, part, curved)
    clipped: Floats = np.clip(np.nan_to_num(guess, nan=0.5), 0.0, 1.0)
    return clipped


def _summed(parts: Floats) -> Floats:
    """Sums up to each edge, (n, P) -> (n, E)."""
    return np.concatenate([np.zeros((len(parts), 1)), parts.cumsum(-1)], axis=-1)


def _count(table: Floats, values: Floats) -> Indices:
    """How many of each row of the table (n, E) are below the values (n, q)."""
    count: Indices = (table[:, None, :] < values[..., None]).sum(-1)
    return count


def _pick(table: Floats, index: Indices) -> Floats:
    """Entries `index` (n, q) of each row of the table."""
    picked: Floats = np.take_along_axis(table, index, axis=-1)
    return picked
