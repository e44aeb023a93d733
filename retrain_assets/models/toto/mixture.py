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
    Floats,
    checked_levels,
    checked_temperature,
    log_shares,
)
from retrain_assets.models.toto.student_t import student_cdf, student_quantile
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
        """See `Temperable.temper`; the mixture itself at 1."""
        tau = checked_temperature(tau)
        return self if tau == 1 else TemperedMixture(self, tau)

    def affine(self, loc: ArrayLike, scale: ArrayLike) -> Self:
        """The distribution of loc + scale x Y; both broadcast against the batch.

        Raises BadInput for a scale that is not above 0.
        """
        shift, factor = (np.asarray(part, dtype=np.float64)[..., None] for part in (loc, scale))
        if (factor <= 0).any():
            raise BadInput(f"a scale must be above 0, not {factor.min()}")
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

    def mean(self) -> Floats:
        """See `Predictive.mean`; exact."""
        if (self.df <= 1).any():
            raise BadInput(
                "the distribution has no mean: a component has "
                f"{float(self.df.min()):.3g} degrees of freedom"
            )
        # Added in the order of memory, so that a sum does not depend on the array's layout.
        mean: Floats = np.ascontiguousarray(np.exp(self.log_weight) * self.location).sum(-1)
        return mean

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

    def _flat(self) -> Self:
        """The same with one batch axis, each row in one piece of memory."""
        fields = (self.df, self.location, self.scale, self.log_weight)
        flat = (np.ascontiguousarray(field.reshape(-1, field.shape[-1])) for field in fields)
        return type(self)(*flat)
