"""Toto 2's predictive distribution: nine quantiles, uniform between them, exponential beyond.

Axes: `...` the batch, 9 knots, 10 cells, which are the lower tail, the 8 intervals and the upper
tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.models.toto.predictive import (
    Floats,
    checked_affine,
    checked_levels,
    checked_temperature,
    log_shares,
)

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The levels of the quantiles that Toto 2 gives out."""

NARROWEST = 1e-6
"""Gaps below this share of the knots' range count as this wide when a density is tempered.

The networks compute in float32, which tells no smaller gap from none.
"""

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class QuantileKnots:
    """A density with ten cells; build it with `of`.

    values: knots, ascending, (..., 9). levels: probability of at most each knot, (..., 9).
    mass: probability of each cell, (..., 10). lower, upper: the tails' mean distance from the
    outermost knots, (...). Equal knots are an atom: the CDF jumps there.
    """

    values: Floats
    levels: Floats
    mass: Floats
    lower: Floats
    upper: Floats

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Knots at `LEVELS` from quantiles (..., 9) in any order; they are sorted, as upstream.

        A tail holds a tenth of the mass, and its density continues that of the outermost
        interval, so its mean distance is that interval's width (at least `NARROWEST` of the
        range, so that a tail is no atom unless all is).
        """
        knots = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
        levels = np.broadcast_to(np.array(LEVELS), knots.shape)
        mass = np.broadcast_to(np.full(10, 0.1), (*knots.shape[:-1], 10))
        gaps = np.maximum(np.diff(knots), NARROWEST * np.ptp(knots, axis=-1)[..., None])
        return cls(knots, levels, mass, lower=gaps[..., 0], upper=gaps[..., -1])

    def temper(self, tau: float) -> Self:
        """See `Predictive.temper`; any tau above 0 will do.

        With b = 1/tau, a uniform cell of mass p and width d keeps p^b d^(1-b). A tail of mass
        p and mean distance s has density p/s at its knot and decays at b/s afterwards, so it
        keeps (p/s)^b s/b and its mean distance becomes s/b.
        """
        tau = checked_temperature(tau)
        if tau == 1:
            return self
        narrowest = NARROWEST * np.ptp(self.values, axis=-1)[..., None]
        # Above 0, so that a constant series, all of whose widths are equal, has finite logs.
        gaps = np.maximum(np.maximum(np.diff(self.values), narrowest), _TINY)
        tails = [np.maximum(tail, _TINY)[..., None] for tail in (self.lower, self.upper)]
        widths = np.concatenate([tails[0], gaps, tails[1]], axis=-1)
        with np.errstate(divide="ignore"):
            logs = np.log(self.mass) / tau + (1 - 1 / tau) * np.log(widths)
        logs[..., [0, -1]] += np.log(tau)
        mass = np.exp(log_shares(logs))
        levels = np.minimum(mass[..., :-1].cumsum(-1), 1.0)
        return replace(
            self, levels=levels, mass=mass, lower=self.lower * tau, upper=self.upper * tau
        )

    def affine(self, loc: ArrayLike, scale: ArrayLike) -> Self:
        """See `Predictive.affine`."""
        shift, factor = checked_affine(loc, scale)
        wide = self._over(np.broadcast_shapes(shift.shape, factor.shape, self.lower.shape))
        return replace(
            wide,
            values=shift[..., None] + factor[..., None] * wide.values,
            lower=factor * wide.lower,
            upper=factor * wide.upper,
        )

    def quantile(self, levels: Sequence[float]) -> Floats:
        """See `Predictive.quantile`; exact, and a knot at its own level to the bit."""
        return np.stack([self._quantile(level) for level in checked_levels(levels)])

    def median(self) -> Floats:
        """See `Predictive.median`."""
        return self._quantile(0.5)

    def mean(self) -> Floats:
        """See `Predictive.mean`; exact, and always finite."""
        low, high = self.values[..., :1], self.values[..., -1:]
        middle = (self.values[..., 1:] + self.values[..., :-1]) / 2
        tails = (low - self.lower[..., None], high + self.upper[..., None])
        centres = np.concatenate([tails[0], middle, tails[1]], axis=-1)
        mean: Floats = (self.mass * centres).sum(-1)
        return mean

    def cdf(self, y: ArrayLike) -> Floats:
        """See `Predictive.cdf`; exact, and at an atom it includes the atom."""
        at, wide, cell = self._locate(y)
        left, right = np.clip(cell - 1, 0, 7), np.clip(cell, 1, 8)
        start, end = _pick(wide.values, left), _pick(wide.values, right)
        share = _ratio(at - start, end - start)
        inside = _pick(wide.levels, left) + _pick(wide.mass, right) * share
        below = wide.mass[..., 0] * _decay(wide.values[..., 0] - at, wide.lower)
        above = 1 - wide.mass[..., -1] * _decay(at - wide.values[..., -1], wide.upper)
        # Sums of masses round; what is inside may not pass the knots around it.
        inside = np.clip(inside, _pick(wide.levels, left), _pick(wide.levels, right))
        return np.select([cell == 0, cell == 9], [below, above], inside)

    def log_density(self, y: ArrayLike) -> Floats:
        """See `Predictive.log_density`; at a knot, that of the cell to its right."""
        at, wide, cell = self._locate(y)
        left, right = np.clip(cell - 1, 0, 7), np.clip(cell, 1, 8)
        width = np.maximum(_pick(wide.values, right) - _pick(wide.values, left), _TINY)
        lower, upper = np.maximum(wide.lower, _TINY), np.maximum(wide.upper, _TINY)
        with np.errstate(divide="ignore", over="ignore"):
            log_mass = np.log(_pick(wide.mass, cell))
            below = log_mass - np.log(lower) - (wide.values[..., 0] - at) / lower
            above = log_mass - np.log(upper) - (at - wide.values[..., -1]) / upper
        return np.select([cell == 0, cell == 9], [below, above], log_mass - np.log(width))

    def crps(self, y: ArrayLike) -> Floats:
        """See `Predictive.crps`; exact.

        Between knots F is linear, so the integral of F^2 is that of a parabola; the interval
        that holds y is cut there. The tails' squares are exponentials again.
        """
        at, wide, _ = self._locate(y)
        start, end = wide.values[..., :-1], wide.values[..., 1:]
        low, high = wide.levels[..., :-1], wide.levels[..., 1:]
        cut = np.clip(at[..., None], start, end)
        middle = low + (high - low) * _ratio(cut - start, end - start)
        below = (cut - start) * _mean_square(low, middle)
        above = (end - cut) * _mean_square(1 - middle, 1 - high)
        tails = _tail_crps(wide.values[..., 0] - at, wide.mass[..., 0], wide.lower) + _tail_crps(
            at - wide.values[..., -1], wide.mass[..., -1], wide.upper
        )
        score: Floats = np.ascontiguousarray(below + above).sum(-1) + tails
        return score

    def _quantile(self, level: float) -> Floats:
        cell = (self.levels < level).sum(-1)
        left, right = np.clip(cell - 1, 0, 7), np.clip(cell, 1, 8)
        start, end = _pick(self.values, left), _pick(self.values, right)
        short = _ratio(_pick(self.levels, right) - level, _pick(self.mass, right))
        inside = np.clip(end - short * (end - start), start, end)
        first, last = self.values[..., 0], self.values[..., -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            below = first + self.lower * np.log(level / self.mass[..., 0])
            above = last - self.upper * np.log((1 - level) / self.mass[..., -1])
        # An empty tail or one of no width gives no number; its knot stands for it.
        below, above = np.fmin(below, first), np.fmax(above, last)
        return np.select([cell == 0, cell == 9], [below, above], inside)

    def _locate(self, y: ArrayLike) -> tuple[Floats, Self, NDArray[np.intp]]:
        """y and the knots on their common shape, and the cell (0 to 9) each y is in."""
        at = np.asarray(y, dtype=np.float64)
        shape = np.broadcast_shapes(at.shape, self.lower.shape)
        at, wide = np.broadcast_to(at, shape), self._over(shape)
        return at, wide, (wide.values <= at[..., None]).sum(-1)

    def _over(self, shape: tuple[int, ...]) -> Self:
        return replace(
            self,
            values=np.broadcast_to(self.values, (*shape, 9)),
            levels=np.broadcast_to(self.levels, (*shape, 9)),
            mass=np.broadcast_to(self.mass, (*shape, 10)),
            lower=np.broadcast_to(self.lower, shape),
            upper=np.broadcast_to(self.upper, shape),
        )


def _pick(table: Floats, index: NDArray[np.intp]) -> Floats:
    """Entry `index` (...) of each row of the table (..., n)."""
    picked: Floats = np.take_along_axis(table, index[..., None], axis=-1)[..., 0]
    return picked


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)


def _decay(distance: Floats, scale: Floats) -> Floats:
    """exp(-distance / scale), 0 for a tail of no width and at most 1 (before the tail begins)."""
    ahead = np.maximum(distance, 0.0)
    with np.errstate(over="ignore"):
        decay: Floats = np.where(scale > 0, np.exp(-ahead / np.maximum(scale, _TINY)), 0.0)
    return decay


def _mean_square(start: Floats, end: Floats) -> Floats:
    """The mean of the square of a line from start to end."""
    mean: Floats = (start * start + start * end + end * end) / 3
    return mean


def _tail_crps(distance: Floats, mass: Floats, scale: Floats) -> Floats:
    """A tail's part of the score, for an outcome this far into it (below 0: not in it).

    With q the probability beyond the outcome, it is the integral of q^2 there, scale q^2 / 2,
    and of (1 - q)^2 on the way to the knot.
    """
    ahead = np.maximum(distance, 0.0)
    beyond = mass * _decay(distance, scale)
    part: Floats = ahead - 2 * scale * (mass - beyond) + scale * mass * mass / 2
    return part
