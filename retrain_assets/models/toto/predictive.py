"""What a Toto model says about a step: a distribution in closed form, so nothing is sampled.

The networks hand over arrays; everything here is float64 in numpy. A distribution has batch axes
(`...`, usually window and step), and no element's numbers depend on the others in the call.
Parameters that are not numbers give results that are not: the forecaster checks those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrain_assets.errors import BadInput

Floats = NDArray[np.float64]

MIN_TEMPERATURE = 0.1
MAX_TEMPERATURE = 1.25
"""What a temperature of a mixture may be: above it, tails of df 2 are all but without a mean."""

LEAST_UNIFORM = 2.0**-54
"""What a uniform number of 0 counts as where its inverse CDF is taken."""


class Predictive(Protocol):
    """One continuous distribution for each element of the batch, in the units of the series."""

    def temper(self, tau: float) -> Predictive:
        """The distribution whose density is p(y)^(1/tau), renormalised.

        tau below 1 moves mass to the modes and the median with it, tau above 1 away from them;
        1 returns the same object. Of a tempered one it is the product of both temperatures, and
        the first distribution where that is 1. Raises BadInput for a tau that is not a number
        above 0, and of a mixture for one outside MIN_TEMPERATURE to MAX_TEMPERATURE.
        """
        ...

    def affine(self, loc: ArrayLike, scale: ArrayLike) -> Self:
        """The distribution of loc + scale x Y; both broadcast against the batch.

        Raises BadInput for a scale that is not above 0.
        """
        ...

    def quantile(self, levels: Sequence[float]) -> Floats:
        """Quantiles, shape (level, ...). Raises BadInput for a level outside (0, 1)."""
        ...

    def median(self) -> Floats:
        """The quantile at .5, shape (...)."""
        ...

    def mean(self) -> Floats:
        """The expectation, shape (...). Raises BadInput where there is none."""
        ...

    def cdf(self, y: ArrayLike) -> Floats:
        """Probability of at most y; y broadcasts against the batch."""
        ...

    def log_density(self, y: ArrayLike) -> Floats:
        """Logarithm of the density at y; y broadcasts against the batch."""
        ...

    def crps(self, y: ArrayLike) -> Floats:
        """Continuous ranked probability score of the outcome y, in the units of y.

        The integral of (F(z) - 1{y <= z})^2 over z (Gneiting and Raftery 2007), equal to
        E|Y - y| - E|Y - Y'| / 2. y broadcasts against the batch. Raises BadInput where the
        expectation does not exist.
        """
        ...


def checked_levels(levels: Sequence[float]) -> list[float]:
    """The levels as numbers. Raises BadInput for one outside (0, 1)."""
    for level in levels:
        if not 0 < level < 1:
            raise BadInput(f"a quantile level must be between 0 and 1, not {level}")
    return [float(level) for level in levels]


def checked_temperature(tau: float) -> float:
    """The temperature as a number. Raises BadInput unless it is finite and above 0."""
    if not (tau > 0 and math.isfinite(tau)):
        raise BadInput(f"temperature must be a finite number above 0, not {tau}")
    return float(tau)


def checked_affine(loc: ArrayLike, scale: ArrayLike) -> tuple[Floats, Floats]:
    """loc and scale as arrays. Raises BadInput for a scale that is not above 0."""
    shift, factor = np.asarray(loc, dtype=np.float64), np.asarray(scale, dtype=np.float64)
    if (factor <= 0).any():
        raise BadInput(f"a scale must be above 0, not {factor.min()}")
    return shift, factor


def log_shares(logs: Floats) -> Floats:
    """Logarithms of exp(logs) over their sum along the last axis; -inf is a share of 0."""
    logs = logs - logs.max(-1, keepdims=True)
    # Summed in the order of memory, so that a row's sum does not depend on the array's layout.
    total = np.ascontiguousarray(np.exp(logs)).sum(-1, keepdims=True)
    shares: Floats = logs - np.log(total)
    return shares
