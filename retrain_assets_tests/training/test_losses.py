"""The three losses are what their names say, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from retrain_assets.errors import BadInput
from retrain_assets.training.losses import VARIANCE_FLOOR, point_loss

MEAN = torch.tensor([[0.0, 3.0]])
TARGET = torch.tensor([[0.5, 0.0]])


def test_mse_and_huber_by_hand() -> None:
    assert float(point_loss("mse", MEAN, None, TARGET)) == pytest.approx((0.25 + 9) / 2)
    huber = (0.5 * 0.25 + (3 - 0.5)) / 2
    assert float(point_loss("huber", MEAN, None, TARGET)) == pytest.approx(huber)


def test_heteroscedastic_by_hand_and_least_at_the_true_variance() -> None:
    variance = torch.tensor([[0.25, 9.0]])
    by_hand = sum(
        0.5 * (math.log(v + VARIANCE_FLOOR) + e / (v + VARIANCE_FLOOR))
        for v, e in [(0.25, 0.25), (9.0, 9.0)]
    )
    at = {
        factor: float(point_loss("heteroscedastic", MEAN, variance * factor, TARGET))
        for factor in (0.5, 1.0, 2.0)
    }
    assert at[1.0] == pytest.approx(by_hand / 2)
    assert at[1.0] < min(at[0.5], at[2.0])


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="huber, heteroscedastic, mse"):
        point_loss("mae", MEAN, None, TARGET)
