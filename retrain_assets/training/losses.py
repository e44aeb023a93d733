"""The guide's three losses on a point forecast, in normalised units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrain_assets.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-3
"""Share of a loss below which a difference means nothing, however sure a test may be of it."""
LOSSES = ("huber", "heteroscedastic", "mse")
HUBER_DELTA = 1.0
"""Where Huber turns from squared to absolute, in standard deviations of the context."""
VARIANCE_FLOOR = 0.15**2
"""Added to a predicted variance, so that no overconfident forecast outweighs all else.

0.15 standard deviations of a context of some hundred daily bars are about one day's move."""


def point_loss(name: str, mean: Tensor, variance: Tensor | None, target: Tensor) -> Tensor:
    """Mean loss of a point forecast; all tensors share one shape, in normalised units.

    huber: quadratic within HUBER_DELTA, linear beyond (Huber 1964). mse: squared error.
    heteroscedastic: Gaussian negative log-likelihood without its constant, with the predicted
    `variance`, which only this loss needs (Nix and Weigend 1994). Raises BadInput for another name.
    """
    from torch.nn import functional as F

    if name == "huber":
        return F.huber_loss(mean, target, delta=HUBER_DELTA)
    if name == "mse":
        return F.mse_loss(mean, target)
    if name == "heteroscedastic":
        if variance is None:
            raise ValueError("the heteroscedastic loss needs a predicted variance")
        return F.gaussian_nll_loss(mean, target, variance + VARIANCE_FLOOR, eps=VARIANCE_FLOOR)
    raise BadInput(f"no loss {name!r}: choose one of {', '.join(LOSSES)}")
