"""Toto 1: a decoder over patches of several series, which predicts each next patch whole.

A patch of raw steps is one position. Most layers attend along time, some across the variates of
one group; the last hidden state of a position gives a mixture of Student-t distributions for every
step of the following patch. Cohen et al., "This Time is Different: An Observability Perspective on
Time Series Foundation Models", arXiv:2505.14766; parameter names and numbers as in DataDog/toto
(Apache-2.0), toto/model, so that its checkpoints load and its forecasts are reproduced.

Axes: B windows, V variates, T steps, N patches, M of them, P steps of a patch, D model width,
nh heads, hs head width, K mixture components.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain_assets.errors import CheckpointError
from retrain_assets.models.toto.moments import patched, running_moments
from retrain_assets.models.toto.toto1_cache import PatchCache
from retrain_assets.models.toto.toto1_config import Toto1Config
from retrain_assets.models.toto.toto1_layers import Transformer

VARIANCE_FLOOR = 0.1
"""Added to every variance, in squared units of the input: feed series whose spread is far above."""


class Scaled(NamedTuple):
    """Series in units of their past. values: (B, V, T); loc, scale: (B, V, N), one a patch."""

    values: Tensor
    loc: Tensor
    scale: Tensor


class MixtureParameters(NamedTuple):
    """Student-t mixtures, fp32, each (B, V, M, P, K): degrees of freedom, locations, scales, log
    weights. In position i stand the steps of patch i + 1, in units of patch i's loc and scale."""

    df: Tensor
    mean: Tensor
    scale: Tensor
    log_weight: Tensor


class Toto1Network(nn.Module):
    """Distributions of the next patch at every patch, causal in train and eval mode alike.

    scaled_values: (B, V, T) as `scaled` returns them, T a multiple of the patch.
    groups: (B, V) int64; variates of a window see each other where their numbers are equal.
    """

    def __init__(self, config: Toto1Config) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.patch_size, config.embed_dim)
        self.transformer = Transformer(config)
        self.unembed = nn.Linear(config.embed_dim, config.patch_size * config.embed_dim)
        self.output_distribution = MixtureHeads(config.embed_dim, config.k_components)

    def forward(self, scaled_values: Tensor, groups: Tensor) -> MixtureParameters:
        """The mixtures that follow every patch, M = N."""
        return self.mixture(self.hidden(scaled_values, groups))

    def scaled(self, values: Tensor, observed: Tensor) -> Scaled:
        """Series (B, V, T) in units of their own past; arguments as `causal_scaling`."""
        return causal_scaling(values, observed, self.config.patch_size)

    def hidden(
        self, scaled_values: Tensor, groups: Tensor, cache: PatchCache | None = None
    ) -> Tensor:
        """Hidden states (B, V, N, D) of patches that start where the cache ends, else at 0.

        cache: what earlier calls saw, extended by this one; for evaluation. After the first call
        B may be any multiple R of the cached windows: R paths a window, those of a window adjacent.
        """
        x = self.patch_embed(scaled_values)
        out: Tensor = self.transformer(x, groups, cache)
        return out

    def mixture(self, hidden: Tensor) -> MixtureParameters:
        """Hidden states (B, V, M, D), of any positions -> the mixtures of the patches that follow.

        The layer in front is the network's largest: ask only for positions that are needed.
        """
        steps = torch.unflatten(self.unembed(hidden), -1, (self.config.patch_size, -1))
        out: MixtureParameters = self.output_distribution(steps)
        return out

    def cache(self) -> PatchCache:
        """An empty cache for `hidden`."""
        return PatchCache(self.config.num_layers)


@torch.no_grad()
def causal_scaling(values: Tensor, observed: Tensor, patch: int) -> Scaled:
    """Subtract each patch's running mean and divide by its running standard deviation.

    values: (B, V, T), finite, T a multiple of `patch`. observed: (B, V, T) bool; other steps count
    in no statistic, but are scaled like all. Both statistics cover all steps up to the patch's
    last; computed in double precision. Upstream also clamps the deviation to within 10**10 of the
    whole window's. That looks ahead and never binds on bars, so nothing here does
    (`toto1_config.LEAST_EXPONENT`).
    """
    mean, variance = running_moments(values, observed, patch)
    loc, scale = mean.to(values), (variance + VARIANCE_FLOOR).sqrt().to(values)
    units = (patched(values, patch) - loc[..., None]) / scale[..., None]
    return Scaled(units.flatten(-2), loc, scale)


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published file under this network's names.

    Drops the prefix "model.", renames the feed-forward of files written with xformers, and leaves
    out rotary tables, which are constants. All else stays, for the caller to be strict about.
    Raises CheckpointError if two weights get the same name.
    """
    ours: dict[str, Tensor] = {}
    for theirs, weight in weights.items():
        name = theirs.removeprefix("model.")
        if ".rotary_emb." in name:
            continue
        name = name.replace(".mlp.0.w12.", ".mlp.0.").replace(".mlp.0.w3.", ".mlp.2.")
        if name in ours:
            raise CheckpointError(f"weight {theirs!r} is there twice, under two names of {name!r}")
        ours[name] = weight
    return ours


class PatchEmbedding(nn.Module):
    """One vector for each patch, (B, V, T) -> (B, V, N, D)."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(patch, width)

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, V, T) to embedded patches (B, V, patches, D)."""
        patches = patched(values, self.projection.in_features)
        out: Tensor = self.projection(patches.to(self.projection.weight.dtype))
        return out


class MixtureHeads(nn.Module):
    """A vector for each step to the parameters of its mixture, in fp32 whatever the weights.

    The layers' weights are read, not their forward: they are no place for adapters.
    """

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.df = nn.Linear(width, components)
        self.loc_proj = nn.Linear(width, components)
        self.scale_proj = nn.Linear(width, components)
        self.mixture_weights = nn.Linear(width, components)

    def forward(self, x: Tensor) -> MixtureParameters:
        """x: (..., D) -> parameters (..., K)."""
        with torch.autocast(x.device.type, enabled=False):
            df, mean, scale, weight = (
                F.linear(x.float(), head.weight.float(), head.bias.float())
                for head in (self.df, self.loc_proj, self.scale_proj, self.mixture_weights)
            )
            return MixtureParameters(
                2 + _positive(df), mean, _positive(scale), weight.log_softmax(-1)
            )


def _positive(x: Tensor) -> Tensor:
    return F.softplus(x).clamp_min(torch.finfo(x.dtype).eps)
