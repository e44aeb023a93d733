"""Bars as Toto reads them: columns in order, units of the context alone."""

from __future__ import annotations

import numpy as np

from retrain_assets.models.toto.series import UNIT, VARIATES, in_units, variates
from retrain_assets_tests.tiny import random_walk


def test_the_close_comes_first_and_nothing_is_lost() -> None:
    bars = random_walk(30)
    found = variates(bars)
    assert VARIATES[0] == "close"
    for i, name in enumerate(VARIATES):
        assert np.array_equal(found[:, i], bars[name])


def test_units_are_the_contexts_and_are_undone() -> None:
    raw = variates(random_walk(60))[None]
    series = in_units(raw, context=40)
    assert series.values.shape == (1, 5, 60)
    past = series.values[0, :, :40].astype(np.float64)
    np.testing.assert_allclose(past.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(past.std(axis=1), UNIT, rtol=1e-5)
    closes = series.values[0, 0] * series.scale[0] + series.mean[0]
    np.testing.assert_allclose(closes, raw[0, :, 0], rtol=1e-6)
    later = raw.copy()
    later[:, 40:] *= 7
    assert np.array_equal(in_units(later, context=40).values[..., :40], series.values[..., :40])


def test_leaps_are_not_clipped() -> None:
    raw = variates(random_walk(60))[None]
    raw[0, 50, 0] *= 40
    assert in_units(raw, context=40).values.max() > 50 * UNIT
