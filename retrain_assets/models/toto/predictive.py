"""What a Toto model says about a step: a distribution in closed form, so nothing is sampled.

The networks hand over arrays; everything here is float64 in numpy. A distribution has batch axes
(`...`, usually window and step), and no element's numbers depend on the others in the call.
Parameters that are not numbers give results that are not: the forecaster checks those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput

Floats = NDArray[np.float64]

MIN_TEMPERATURE = 0.1
MAX_TEMPERATURE = 1.25
"""What a temperature of a mixture may be: above it, tails of df 2 are all but without a mean."""


class Predictive(Protocol):
    """One continuous distribution for each element of the batch, in the units of the series."""

    def quantile(self, levels: Sequence[float]) -> Floats:
        """Quantiles, shape (level, ...). Raises BadInput for a level outside (0, 1)."""
        ...

    def mean(self) -> Floats:
        """The expectation, shape (...). Raises BadInput where there is none."""
        ...


class Temperable(Predictive, Protocol):
    """What a network says, which a temperature may still change."""

    def temper(self, tau: float) -> Predictive:
        """The distribution whose density is p(y)^(1/tau), renormalised.

        tau below 1 moves mass to the modes and the median with it, tau above 1 away from them;
        1 returns the same object. Raises BadInput for a tau that is not a number above 0, and of
        a mixture for one outside MIN_TEMPERATURE to MAX_TEMPERATURE.
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


def log_shares(logs: Floats) -> Floats:
    """Logarithms of exp(logs) over their sum along the last axis; -inf is a share of 0."""
    logs = logs - logs.max(-1, keepdims=True)
    # Summed in the order of memory, so that a row's sum does not depend on the array's layout.
    total = np.ascontiguousarray(np.exp(logs)).sum(-1, keepdims=True)
    shares: Floats = logs - np.log(total)
    return shares
