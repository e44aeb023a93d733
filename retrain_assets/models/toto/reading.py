"""What a network says after it has read a window's past, before any temperature is chosen.

One prefill serves every temperature. Within a patch of Toto 1, and at any horizon of Toto 2, the
answer is a distribution in closed form. Beyond a patch Toto 1 has to be shown what it said, so
paths are drawn there, patch by patch, on one cache of the window; all temperatures draw with the
same uniform numbers.

Axes: W windows, V variates (the close first), T positions, h steps, P steps of a patch, K
mixture components, R paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from retrain_assets.models.forecaster import QUANTILE_LEVELS
from retrain_assets.models.toto.checkpoint import Network
from retrain_assets.models.toto.knots import QuantileKnots
from retrain_assets.models.toto.mixture import StudentMixture
from retrain_assets.models.toto.predictive import Floats, Predictive, Temperable
from retrain_assets.models.toto.tempered import TemperedMixture
from retrain_assets.models.toto.toto1 import MixtureParameters, Scaled, Toto1Network
from retrain_assets.models.toto.toto1_cache import PatchCache
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.models.uniforms import uniforms


class Points(NamedTuple):
    """Closes of some windows: mean and median (W, h), and their QUANTILE_LEVELS (W, level, h)."""

    mean: Floats
    median: Floats
    quantiles: Floats


class Reading(Protocol):
    """What is known of some windows' futures."""

    def under(self, temperature: float) -> Points:
        """The closes under a temperature; raises BadInput where they have no mean."""
        ...


def read(
    network: Network, values: Tensor, *, steps: int, origins: Sequence[int], paths: int, seed: int
) -> Reading:
    """Read windows of series (W, V, T), T a multiple of the patch, to forecast `steps` closes.

    origins: what keys each window's random numbers. paths: to draw, where draws are needed.
    """
    groups = torch.zeros(values.shape[:2], dtype=torch.int64, device=values.device)
    observed = torch.ones_like(values, dtype=torch.bool)
    if isinstance(network, Toto2Network):
        knots = network.forecast(values, observed, groups, steps)  # (W, V, h, 9)
        return ClosedForm(QuantileKnots.of(_doubles(knots[:, 0])))
    scaled = network.scaled(values, observed)
    cache = network.cache()
    hidden = network.hidden(scaled.values, groups, cache)
    patch = network.config.patch_size
    if steps <= patch:
        close = _close(_of_patch(network.mixture(hidden[:, :1, -1:]), scaled))
        return ClosedForm(_each(close, lambda part: part[:, :steps]))
    first = _of_patch(network.mixture(hidden[:, :, -1:]), scaled)
    # Every second of twice as many parts: the others would do as well, but give other paths.
    noise = [
        uniforms(seed, origin, steps=steps, parts=2 * values.shape[1], paths=paths)[:, 1::2]
        for origin in origins
    ]
    return Drawn(network, values, cache, first, np.stack(noise))


class ClosedForm:
    """Windows whose whole future is one distribution a step: nothing is drawn."""

    def __init__(self, closes: Temperable) -> None:
        self.closes = closes

    def under(self, temperature: float) -> Points:
        """Exact mean, median and quantiles."""
        return _points(self.closes.temper(temperature))


class Drawn:
    """Windows of Toto 1 whose future is longer than a patch.

    values: (W, V, T), the past. cache: of the network after it has read them. first: mixtures of
    the patch that follows, batch (W, V, P). noise: uniform numbers (W, h, V, R).
    """

    def __init__(
        self,
        network: Toto1Network,
        values: Tensor,
        cache: PatchCache,
        first: StudentMixture,
        noise: Floats,
    ) -> None:
        self.network, self.values, self.cache = network, values, cache
        self.first, self.noise = first, noise

    def under(self, temperature: float) -> Points:
        """Exact within the first patch; beyond it, of paths in which all before was drawn."""
        patch, steps = self.network.config.patch_size, self.noise.shape[1]
        near = _points(_close(self.first).temper(temperature))
        later = self._paths(temperature)[..., : steps - patch]  # (W, R, h - P)
        quantiles = np.quantile(later, QUANTILE_LEVELS, axis=1).transpose(1, 0, 2)
        return Points(
            np.concatenate((near.mean, later.mean(axis=1)), axis=-1),
            np.concatenate((near.median, np.median(later, axis=1)), axis=-1),
            np.concatenate((near.quantiles, quantiles), axis=-1),
        )

    def _paths(self, temperature: float) -> Floats:
        """Closes of the patches after the first, (W, R, whole patches)."""
        windows, count, _ = self.values.shape
        patch, steps = self.network.config.patch_size, self.noise.shape[1]
        paths = self.noise.shape[-1]
        # (W, V, 1, P) against noise (W, V, R, P): paths of one window share its mixtures.
        mixtures = _each_path(self.first)
        series = self.values.repeat_interleave(paths, dim=0)  # (W R, V, T)
        groups = torch.zeros(series.shape[:2], dtype=torch.int64, device=series.device)
        cache, drawn = self.cache.fork(), []
        for start in range(0, steps, patch):
            # At a temperature of 1 too, which `temper` would leave alone: only this one draws.
            tempered = TemperedMixture(mixtures, temperature)
            block = tempered.sample(self._uniforms(start, patch))  # (W, V, R, P)
            if start:
                drawn.append(block[:, 0])
            if start + patch >= steps:
                break
            rows = block.transpose(0, 2, 1, 3).reshape(windows * paths, count, patch)
            series = torch.cat((series, torch.from_numpy(rows).to(series)), dim=-1)
            scaled = self.network.scaled(series, torch.ones_like(series, dtype=torch.bool))
            hidden = self.network.hidden(scaled.values[..., -patch:], groups, cache)
            mixtures = _by_path(_of_patch(self.network.mixture(hidden), scaled), windows, paths)
        return np.concatenate(drawn, axis=-1)

    def _uniforms(self, start: int, patch: int) -> Floats:
        """Numbers of one patch's steps, (W, V, R, P); past the horizon they do not matter."""
        windows, _, count, paths = self.noise.shape
        block = np.full((windows, patch, count, paths), 0.5)
        here = self.noise[:, start : start + patch]
        block[:, : here.shape[1]] = here
        return block.transpose(0, 2, 3, 1)


def _points(closes: Predictive) -> Points:
    quantiles = closes.quantile(QUANTILE_LEVELS)  # (level, W, h)
    return Points(
        closes.mean(), quantiles[QUANTILE_LEVELS.index(0.5)], quantiles.transpose(1, 0, 2)
    )


def _of_patch(mixtures: MixtureParameters, scaled: Scaled) -> StudentMixture:
    """Mixtures of the last position's patch in the series' units, batch (W, V, P).

    mixtures: each (W, V, M, P, K), of the first V variates of `scaled`.
    """
    found = StudentMixture.of(*(_doubles(part[:, :, -1]) for part in mixtures))
    count = found.df.shape[1]
    loc, scale = (_doubles(part[:, :count, -1:]) for part in (scaled.loc, scaled.scale))
    return found.affine(loc, scale)


def _close(mixtures: StudentMixture) -> StudentMixture:
    """Batch (W, V, P) -> (W, P), of the first variate."""
    return _each(mixtures, lambda part: part[:, 0])


def _each_path(mixtures: StudentMixture) -> StudentMixture:
    """Batch (W, V, P) -> (W, V, 1, P)."""
    return _each(mixtures, lambda part: part[:, :, None])


def _by_path(mixtures: StudentMixture, windows: int, paths: int) -> StudentMixture:
    """Batch (W R, V, P) -> (W, V, R, P)."""

    def reordered(part: Floats) -> Floats:
        return part.reshape(windows, paths, *part.shape[1:]).transpose(0, 2, 1, 3, 4)

    return _each(mixtures, reordered)


def _each(mixtures: StudentMixture, change: Callable[[Floats], Floats]) -> StudentMixture:
    """The mixtures with every array (..., K) changed alike."""
    return StudentMixture(
        df=change(mixtures.df),
        location=change(mixtures.location),
        scale=change(mixtures.scale),
        log_weight=change(mixtures.log_weight),
    )


def _doubles(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().double().numpy()
    return array
