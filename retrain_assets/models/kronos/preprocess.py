"""Bars as Kronos reads them: six features a bar, and the calendar fields of its session.

Source of the features and of the calendar order: shiyu-coder/Kronos, KronosPredictor in
model/kronos.py (MIT). Windows of features are normalised by training.windows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.models.inputs import require_finite

FEATURES = ("open", "high", "low", "close", "volume", "amount")
"""Features of a bar in the order of the tokenizer's input."""

CLOSE = FEATURES.index("close")
_PRICES = ["open", "high", "low", "close"]


def features(bars: pd.DataFrame) -> NDArray[np.float64]:
    """Features of a bars frame, shape (bar, 6), in the order of FEATURES.

    The traded amount is not stored: it is volume times the mean of open, high, low and close,
    as upstream fills it in. Raises BadInput naming the first session and column that is not a
    finite number.
    """
    amount = bars["volume"] * bars[_PRICES].mean(axis=1)
    values = np.column_stack((bars[[*_PRICES, "volume"]], amount)).astype(np.float64)
    require_finite(values, FEATURES, bars["session"])
    return values


def time_features(sessions: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Minute, hour, weekday (Monday 0), day and month of each label, shape (bar, 5)."""
    fields = (sessions.minute, sessions.hour, sessions.weekday, sessions.day, sessions.month)
    return np.column_stack(fields).astype(np.int64)
