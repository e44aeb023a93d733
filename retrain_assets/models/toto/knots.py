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
        """See `Temperable.temper`; any tau above 0 will do.

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

    def quantile(self, levels: Sequence[float]) -> Floats:
        """See `Predictive.quantile`; exact, and a knot at its own level to the bit."""
        return np.stack([self._quantile(level) for level in checked_levels(levels)])

    def mean(self) -> Floats:
        """See `Predictive.mean`; exact, and always finite."""
        low, high = self.values[..., :1], self.values[..., -1:]
        middle = (self.values[..., 1:] + self.values[..., :-1]) / 2
        tails = (low - self.lower[..., None], high + self.upper[..., None])
        centres = np.concatenate([tails[0], middle, tails[1]], axis=-1)
        mean: Floats = (self.mass * centres).sum(-1)
        return mean

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


def _pick(table: Floats, index: NDArray[np.intp]) -> Floats:
    """Entry `index` (...) of each row of the table (..., n)."""
    picked: Floats = np.take_along_axis(table, index[..., None], axis=-1)[..., 0]
    return picked


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)
