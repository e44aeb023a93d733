"""Toto 1's predictive distribution: a mixture of Student-T distributions.

Axes: `...` the batch, K components. scipy is imported where it is used, since this layer is also
read where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.predictive import (
    LEAST_UNIFORM,
    Floats,
    checked_affine,
    checked_levels,
    checked_temperature,
    log_shares,
)
from retrain_assets.models.toto.student_t import (
    log_excess,
    log_peak,
    mean_shortfall,
    mean_spread,
    student_cdf,
    student_quantile,
)
from retrain_assets.models.toto.tempered import TemperedMixture

_LEAST_SCALE = 1e-200  # a softplus in float32 can be 0; this leaves room to scale it down


@dataclass(frozen=True, eq=False)
class StudentMixture:
    """A mixture of K Student-T distributions; build it with `of`.

    df: degrees of freedom, from 2 up. location and scale: in the units of the series.
    log_weight: logarithms of weights that sum to 1. All (..., K).
    """

    df: Floats
    location: Floats
    scale: Floats
    log_weight: Floats

    @classmethod
    def of(
        cls, df: ArrayLike, location: ArrayLike, scale: ArrayLike, log_weight: ArrayLike
    ) -> Self:
        """A mixture from what the heads give out, broadcast to (..., K).

        log_weight may be off by a constant (logits will do). A scale of 0 becomes 1e-200.
        """
        df, location, scale, log_weight = (
            np.ascontiguousarray(field, dtype=np.float64)
            for field in np.broadcast_arrays(df, location, scale, log_weight)
        )
        return cls(df, location, np.maximum(scale, _LEAST_SCALE), log_shares(log_weight))

    def temper(self, tau: float) -> StudentMixture | TemperedMixture:
        """See `Predictive.temper`; the mixture itself at 1."""
        tau = checked_temperature(tau)
        return self if tau == 1 else TemperedMixture(self, tau)

    def affine(self, loc: ArrayLike, scale: ArrayLike) -> Self:
        """See `Predictive.affine`."""
        shift, factor = checked_affine(loc, scale)
        shift, factor = shift[..., None], factor[..., None]
        df, location, spread, log_weight = np.broadcast_arrays(
            self.df, shift + factor * self.location, factor * self.scale, self.log_weight
        )
        return replace(self, df=df, location=location, scale=spread, log_weight=log_weight)

    def quantile(self, levels: Sequence[float]) -> Floats:
        """See `Predictive.quantile`; the root of the CDF to about 1e-15 of the probability."""
        wanted = np.array(checked_levels(levels))
        batch = self.df.shape[:-1]
        flat = self._flat()
        rows = len(flat.df)
        row = np.tile(np.arange(rows), len(wanted))
        return flat._roots(row, np.repeat(wanted, rows)).reshape(len(wanted), *batch)

    def median(self) -> Floats:
        """See `Predictive.median`."""
        median: Floats = self.quantile((0.5,))[0]
        return median

    def mean(self) -> Floats:
        """See `Predictive.mean`; exact."""
        self._need_mean()
        return self._mix(self.location)

    def cdf(self, y: ArrayLike) -> Floats:
        """See `Predictive.cdf`; exact."""
        return self._mix(student_cdf(self.df, self._standard(y)))

    def log_density(self, y: ArrayLike) -> Floats:
        """See `Predictive.log_density`; exact."""
        z = self._standard(y)
        logs = self.log_weight + log_peak(self.df, self.scale)
        logs = logs - (self.df + 1) / 2 * log_excess(self.df, z)
        most = np.maximum(logs.max(-1, keepdims=True), np.finfo(np.float64).min)
        total = np.ascontiguousarray(np.exp(logs - most)).sum(-1)
        with np.errstate(divide="ignore"):
            log_density: Floats = most[..., 0] + np.log(total)
        return log_density

    def crps(self, y: ArrayLike) -> Floats:
        """See `Predictive.crps`; the part that depends on y is exact.

        The other part, the integral of F (1 - F), is a quadrature that is off by less than 1e-6
        of itself.
        """
        self._need_mean()
        offset = np.asarray(y, dtype=np.float64)[..., None] - self.location
        away = self._mix(2 * mean_shortfall(self.df, self.scale, offset) - offset)
        flat = self._flat()
        within = mean_spread(flat.df, flat.location, flat.scale, np.exp(flat.log_weight))
        score: Floats = away - within.reshape(self.df.shape[:-1])
        return score

    def sample(self, uniforms: ArrayLike) -> Floats:
        """One draw for each pair of uniform numbers in [0, 1), shape (..., 2) to (...).

        The first number picks the component by the cumulative weights, the second its value by
        the inverse CDF, so equal numbers give comparable draws of different mixtures. Leading
        axes broadcast against the batch: (path, ..., 2) draws paths.
        """
        pair = np.asarray(uniforms, dtype=np.float64)
        shape = np.broadcast_shapes(pair.shape[:-1], self.df.shape[:-1])
        cumulative = np.exp(self.log_weight).cumsum(-1)
        mark = pair[..., :1] * cumulative[..., -1:]
        # The last weight above zero takes what rounding might carry beyond it.
        last = (cumulative < cumulative[..., -1:]).sum(-1)
        component = np.minimum((cumulative <= mark).sum(-1), last)[..., None]
        df, location, scale = (
            np.take_along_axis(np.broadcast_to(field, (*shape, field.shape[-1])), component, -1)
            for field in (self.df, self.location, self.scale)
        )
        uniform = np.maximum(pair[..., 1:], LEAST_UNIFORM)
        draws: Floats = (location + scale * student_quantile(df, uniform))[..., 0]
        return draws

    def _roots(self, row: NDArray[np.intp], level: Floats) -> Floats:
        """Quantiles at `level` of these rows of a flat mixture, all (n,)."""
        from scipy.optimize import elementwise

        # Probabilities are taken from the nearer end, where they keep their digits.
        side = np.where(level <= 0.5, 1.0, -1.0)
        target = np.where(level <= 0.5, level, 1 - level)
        weight = np.exp(self.log_weight)

        def excess(x: Floats, i: NDArray[np.intp]) -> Floats:
            mine = row[i]
            with np.errstate(over="ignore"):
                z = (x[:, None] - self.location[mine]) / self.scale[mine]
            part = weight[mine] * student_cdf(self.df[mine], side[i, None] * z)
            found: Floats = part.sum(-1) / target[i] - 1
            return found

        bracket = self._bracket(row, side, target)
        close = {"fatol": float(np.finfo(np.float64).eps)}
        root = elementwise.find_root(excess, bracket, args=(np.arange(len(row)),), tolerances=close)
        return np.asarray(root.x, dtype=np.float64)

    def _bracket(
        self, row: NDArray[np.intp], side: Floats, target: Floats
    ) -> tuple[Floats, Floats]:
        """Values below and above the quantiles: those of the components, a little widened.

        The widening covers what the inverse CDF and the sum with the location round off.
        """
        z = side[:, None] * student_quantile(self.df[row], target[:, None])
        quantile = self.location[row] + self.scale[row] * z
        margin = 1e-9 * self.scale[row] * np.maximum(np.abs(z), 1.0)
        margin = np.maximum(margin, 4 * np.spacing(np.abs(quantile)))
        return (quantile - margin).min(-1), (quantile + margin).max(-1)

    def _mix(self, values: Floats) -> Floats:
        """The weighted sum of components' values (..., K), added in the order of memory."""
        mixed: Floats = np.ascontiguousarray(np.exp(self.log_weight) * values).sum(-1)
        return mixed

    def _standard(self, y: ArrayLike) -> Floats:
        with np.errstate(over="ignore"):
            standard: Floats = (np.asarray(y, dtype=np.float64)[..., None] - self.location) / (
                self.scale
            )
        return standard

    def _flat(self) -> Self:
        """The same with one batch axis, each row in one piece of memory."""
        fields = (self.df, self.location, self.scale, self.log_weight)
        flat = (np.ascontiguousarray(field.reshape(-1, field.shape[-1])) for field in fields)
        return type(self)(*flat)

    def _need_mean(self) -> None:
        if (self.df <= 1).any():
            raise BadInput(
                "the distribution has no mean: a component has "
                f"{float(self.df.min()):.3g} degrees of freedom"
            )
