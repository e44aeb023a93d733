"""Windows hold the bars they should, and nothing of the future enters their statistics."""

from __future__ import annotations

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.training.windows import cut_windows, kept_targets, normalise_windows

SERIES = np.arange(40, dtype=np.float64).repeat(2).reshape(40, 2) + np.array([0.0, 100.0])


def test_a_window_is_its_context_and_its_targets() -> None:
    windows = cut_windows(SERIES, WindowRange(first=10, stop=20, context=4, horizon=3, stride=2))
    assert windows.shape == (4, 7, 2)
    assert windows[0, :, 0].tolist() == [6, 7, 8, 9, 10, 11, 12]
    assert windows[-1, :, 1].tolist() == [112, 113, 114, 115, 116, 117, 118]


@pytest.mark.parametrize(
    "outside",
    [
        WindowRange(first=3, stop=20, context=4, horizon=3),
        WindowRange(first=10, stop=41, context=4, horizon=3),
        WindowRange(first=10, stop=12, context=4, horizon=3),
    ],
)
def test_a_range_outside_the_series_is_refused(outside: WindowRange) -> None:
    with pytest.raises(BadInput):
        cut_windows(SERIES, outside)


def test_statistics_are_those_of_the_context_alone() -> None:
    windows = cut_windows(SERIES, WindowRange(first=10, stop=30, context=8, horizon=5))
    before = normalise_windows(windows, context=8)
    changed = windows.copy()
    changed[:, 8:] *= -7
    after = normalise_windows(changed, context=8)
    assert np.array_equal(before.values[:, :8], after.values[:, :8])
    assert np.array_equal(before.mean, after.mean)
    head = windows[0, :8, 0]
    assert before.values[0, 0, 0] == pytest.approx((head[0] - head.mean()) / (head.std() + 1e-5))


def test_values_are_clipped() -> None:
    windows = np.zeros((1, 9, 1))
    windows[0, :8, 0] = [0, 1] * 4
    windows[0, 8, 0] = 1e6
    assert normalise_windows(windows, context=8).values[0, 8, 0] == 5.0


def test_cut_targets_hold_no_bar_from_the_stop_on() -> None:
    windows = WindowRange(first=17, stop=20, context=4, horizon=3, cut_targets=True)
    found = cut_windows(SERIES, windows)
    assert found[:, 4:, 0].tolist() == [[17, 18, 19], [18, 19, 19], [19, 19, 19]]
    kept = kept_targets(windows)
    assert kept.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
