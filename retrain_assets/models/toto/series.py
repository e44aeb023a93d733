"""Bars as Toto reads them: the close and four companions, each in units of its own context.

Both networks divide by running deviations of what they see, but not cleanly: Toto 1 adds .1 to
every variance, which would flatten a coin that costs .001 and leave a stock that costs 500 as
it is. So every series enters with a deviation of 100 over its context, and forecasts are turned
back; a price in other units then gives the same forecast in those units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.models.inputs import require_finite
from retrain_assets.training.windows import normalise_windows

VARIATES = ("close", "open", "high", "low", "volume")
"""The forecast series first, then those whose past may be read beside it."""
UNIT = 100.0
"""Deviation of a series over its context, as the networks see it."""
STILL = 1e-6
"""Least deviation of a context as a share of its mean: a series that never moves stays put."""


@dataclass(frozen=True)
class Series:
    """Windows of several series in units of their contexts.

    values: (window, variate, position) float32. mean, scale: (window,) of the close; price =
    value * scale + mean.
    """

    values: NDArray[np.float32]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


def variates(bars: pd.DataFrame) -> NDArray[np.float64]:
    """Columns of a bars frame, (bar, variate), in the order of VARIATES.

    Raises BadInput naming the first session and column that is not a finite number.
    """
    values = bars[list(VARIATES)].to_numpy(dtype=np.float64)
    require_finite(values, VARIATES, bars["session"])
    return values


def in_units(windows: NDArray[np.float64], *, context: int) -> Series:
    """Normalise windows (window, position, variate) on their first `context` positions."""
    found = normalise_windows(windows, context=context, epsilon=0.0, relative=STILL, clip=np.inf)
    values = np.ascontiguousarray(found.values.transpose(0, 2, 1) * UNIT, dtype=np.float32)
    return Series(values, found.mean[:, 0], found.scale[:, 0] / UNIT)
