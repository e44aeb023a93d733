"""Training windows cut from one series: context and horizon together, normalised on the context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import WindowRange

Array = NDArray[np.float64]


def cut_windows(series: NDArray[np.generic], windows: WindowRange) -> NDArray[np.generic]:
    """Cut the windows of a range out of a series.

    series: axes (bar, channel). Returns a copy with axes (window, position, channel); positions
    [0, context) are the context and [context, context + horizon) the targets. Targets that the
    range cuts off hold the last bar before its stop instead (`kept_targets` tells which). Raises
    BadInput if the range holds no window or reaches outside the series.
    """
    targets = np.asarray(windows.targets(), dtype=np.int64)
    if not len(targets):
        raise BadInput(
            f"no window with {windows.context} context bars and {windows.horizon} target bars "
            f"has its targets in bars [{windows.first}, {windows.stop})"
        )
    starts = targets - windows.context
    if starts[0] < 0 or windows.stop > len(series):
        raise BadInput(
            f"windows reach from bar {starts[0]} to bar {windows.stop} of a series of {len(series)}"
        )
    if windows.cut_targets:
        series = np.pad(series[: windows.stop], ((0, windows.horizon), (0, 0)), mode="edge")
    length = windows.context + windows.horizon
    views = np.lib.stride_tricks.sliding_window_view(series, length, axis=0)
    return np.ascontiguousarray(views[starts].transpose(0, 2, 1))


def kept_targets(windows: WindowRange) -> NDArray[np.bool_]:
    """True for the targets that lie before the range's stop, (window, step)."""
    first = np.asarray(windows.targets(), dtype=np.int64)
    kept: NDArray[np.bool_] = first[:, None] + np.arange(windows.horizon) < windows.stop
    return kept


@dataclass(frozen=True)
class Normalised:
    """Windows in units of their own context's standard deviations.

    values: (window, position, channel), clipped.
    mean, scale: statistics of each context, (window, channel); price = value * scale + mean.
    """

    values: Array
    mean: Array
    scale: Array


def normalise_windows(
    windows: Array,
    *,
    context: int,
    epsilon: float = 1e-5,
    relative: float = 0.0,
    clip: float = 5.0,
) -> Normalised:
    """Z-score every window by the mean and standard deviation (ddof 0) of its context alone.

    windows: (window, position, channel). No target bar enters the statistics, so a window looks
    in training exactly as its context looks when it is forecast. epsilon: added to the
    deviation. relative: least deviation as a share of the mean, for contexts that hardly move.
    """
    head = windows[:, :context]
    mean = head.mean(axis=1)
    scale = np.maximum(head.std(axis=1) + epsilon, relative * np.abs(mean))
    scale = np.where(scale > 0, scale, 1.0)
    values = (windows - mean[:, None]) / scale[:, None]
    return Normalised(np.clip(values, -clip, clip), mean, scale)
