"""Versions scored on forecasts of one length at given origins, beside naive.

A comparison forecasts everything at every horizon and by the clock. Where only the errors of a few
versions are wanted, as of incumbents, of a longer look or of a live month, this is what to call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.evaluation.comparison import NAIVE, Candidate, Occasion, forecast_values
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.models.forecaster import Forecaster
from retrain_assets.models.naive import NaiveForecaster


def losses_at(
    bars: pd.DataFrame,
    origins: Sequence[int],
    days: int,
    forecasters: Mapping[str, tuple[Forecaster, Version]],
    *,
    symbol: str,
    seed: int | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Relative losses of naive and of each named version, one an origin, (origin,).

    A loss is the mean absolute error of the mean path over `days` bars / close at the origin.
    bars: all that may be seen, and the targets. origins: positions of the last bar a forecast
    sees, ascending. symbol: for messages. seed: of every forecast, by default each version's own.

    Raises RetrainError for a forecast that is not finite, naming version and origin.
    """
    occasion = Occasion("test", "holdout", days, tuple(origins))
    closes = bars["close"].to_numpy()
    actual = np.stack([closes[origin + 1 : origin + 1 + days] for origin in origins])
    everyone = {NAIVE: (NaiveForecaster(), NAIVE_VERSION), **forecasters}
    losses = {}
    for name, (forecaster, version) in everyone.items():
        context = min(version.context, origins[0] + 1)
        candidate = Candidate(name, forecaster, version.settings, context)
        own = version.seed if seed is None else seed
        values = forecast_values(bars, occasion, candidate, symbol, own)
        errors = np.abs(values[""].reshape(actual.shape) - actual)
        losses[name] = errors.mean(axis=1) / closes[list(origins)]
    return losses
