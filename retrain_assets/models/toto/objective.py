"""What an adapter of Toto is trained on: the guide's losses on the predictive distribution.

Every position predicts its next patch, so a window of N patches holds N - 1 forecasts. All are
scored, in the units that the network gives each in: the running deviation of its past. The point
is Toto 1's mean of the mixture and Toto 2's median; beside its loss stands the likelihood of the
distribution (Toto 1 the mixture's negative logarithm, Toto 2 the pinball loss of the nine
quantiles), as upstream trains both at once: without it the point would learn and the spread rot.
Heteroscedastic is that likelihood alone. Only the close is scored; companions are there to be
read.

Axes: B windows, V variates (the close first), T positions, N patches of P steps, K components.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.checkpoint import Network
from retrain_assets.models.toto.moments import patched
from retrain_assets.models.toto.toto1 import MixtureParameters, Toto1Network
from retrain_assets.models.toto.toto2 import KNOTS, Toto2Network, to_units
from retrain_assets.training.losses import LOSSES, point_loss

LIKELIHOOD = "heteroscedastic"


class Batch(NamedTuple):
    """Windows to score; positions [0, context) are the past, the rest the horizon.

    values: (B, V, T), T a multiple of the patch. scored: (B, T) bool, closes that count: any of
    the past, and of the horizon those that are there. cut: (B,) int64, patches that Toto 2
    is shown, those that follow are masked; Toto 1 has no mask.
    """

    values: Tensor
    scored: Tensor
    cut: Tensor


def losses(network: Network, batch: Batch, *, loss: str) -> tuple[dict[str, Tensor], Tensor]:
    """Sums over the scored closes by name, "loss" the total, and how many there were.

    Raises BadInput for a loss that is not one of the three.
    """
    if loss not in LOSSES:
        raise BadInput(f"no loss {loss!r}: choose one of {', '.join(LOSSES)}")
    forecast = _mixtures if isinstance(network, Toto1Network) else _quantiles
    scored = patched(batch.scored, network.config.patch_size)[:, 1:]
    name, likelihood, point, target = forecast(network, batch)  # type: ignore[arg-type]  # by kind
    count = scored.sum()
    total = torch.where(scored, likelihood, 0).sum()
    found = {"loss": total, name: total}
    if loss != LIKELIHOOD:
        found[loss] = point_loss(loss, point[scored], None, target[scored]) * count
        found["loss"] = total + found[loss]
    return found, count


def _mixtures(network: Toto1Network, batch: Batch) -> tuple[str, Tensor, Tensor, Tensor]:
    """Name and value of the likelihood, point and target; each (B, N - 1, P)."""
    patch = network.config.patch_size
    past = batch.values[..., :-patch]  # the last patch is a target only
    scaled = network.scaled(past, torch.ones_like(past, dtype=torch.bool))
    groups = torch.zeros(past.shape[:2], dtype=torch.int64, device=past.device)
    hidden = network.hidden(scaled.values, groups)[:, :1]
    mixtures = MixtureParameters(*(part[:, 0] for part in network.mixture(hidden)))
    closes = patched(batch.values[:, 0], patch)[:, 1:]
    target = (closes - scaled.loc[:, 0, :, None]) / scaled.scale[:, 0, :, None]
    mean = (mixtures.log_weight.exp() * mixtures.mean).sum(-1)
    return "negative_log_likelihood", -log_density(mixtures, target), mean, target


def log_density(mixtures: MixtureParameters, y: Tensor) -> Tensor:
    """Logarithm of the density of mixtures (..., K) at y (...), differentiable."""
    df, mean, scale, log_weight = mixtures
    z = (y[..., None] - mean) / scale
    peak = (
        torch.lgamma((df + 1) / 2)
        - torch.lgamma(df / 2)
        - 0.5 * (df.log() + math.log(math.pi))
        - scale.log()
    )
    fall = (df + 1) / 2 * torch.log1p(z.square() / df)
    return torch.logsumexp(log_weight + peak - fall, dim=-1)


def _quantiles(network: Toto2Network, batch: Batch) -> tuple[str, Tensor, Tensor, Tensor]:
    """Name and value of the likelihood, point and target; each (B, N - 1, P).

    The forecasts of patches up to a window's cut are of the next patch; those after it are of a
    horizon that is masked as a forecast masks it.
    """
    patch = network.config.patch_size
    values = batch.values[..., :-patch]
    count = values.shape[-1] // patch
    position = torch.arange(count, device=values.device)
    known = (position < batch.cut[:, None]).repeat_interleave(patch, dim=1)
    known = known[:, None].expand(values.shape)
    groups = torch.zeros(values.shape[:2], dtype=torch.int64, device=values.device)
    states, loc, scale = network.hidden(values, torch.ones_like(known), known, groups)
    knots = network.readout(states[:, 0])  # (B, N - 1, P, 9)
    closes = patched(batch.values[:, 0], patch)[:, 1:]
    target = to_units(closes, loc[:, 0], scale[:, 0])
    return "pinball", pinball(knots, target), knots[..., KNOTS.index(0.5)], target


def pinball(knots: Tensor, y: Tensor) -> Tensor:
    """Mean over the nine levels of twice the quantile loss, (..., 9) and (...) -> (...).

    Twice, so that it approximates the continuous ranked probability score (Gneiting and
    Ranjan 2011).
    """
    levels = torch.tensor(KNOTS, dtype=knots.dtype, device=knots.device)
    error = y[..., None] - knots
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)


def padded(values: Tensor, patch: int) -> Tensor:
    """Series (..., T) with their last value repeated up to a multiple of the patch."""
    return F.pad(values, (0, -values.shape[-1] % patch), mode="replicate")
