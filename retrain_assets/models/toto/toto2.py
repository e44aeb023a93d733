"""Toto 2: a transformer over patches of several series that predicts quantiles of the next patch.

Every position is one patch of one variate. Layers attend along time (causally) or across the
variates of a group, and position i predicts patch i + 1; patches that are to be forecast enter
masked, so that one pass serves any horizon. Parameter names and numbers as in DataDog/toto,
toto2/model.py (Apache-2.0), so that its checkpoints load and its forecasts are reproduced; its
u-muP multipliers (arXiv:2407.17465) are in the weights here, see `folding`.

Axes: B batch, V variates, T steps, P steps of a patch, N positions (patches), M of them, D model
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain_assets.models.toto.folding import power
from retrain_assets.models.toto.moments import patched, running_moments
from retrain_assets.models.toto.toto2_config import Toto2Config
from retrain_assets.models.toto.toto2_layers import ResidualMLP, Transformer

KNOTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the quantiles, in the order of the last axis."""
MIN_SCALE = 1e-6
"""Smallest standard deviation that values are divided by, in their own unit."""
NO_GROUP = -1
"""Group of patches without a value: they see one another and nobody else sees them."""


class Toto2Network(nn.Module):
    """Quantiles of every next patch.

    values: (B, V, T), T a multiple of P, in any unit that is large against MIN_SCALE: forecasts
    do not depend on it.
    observed: (B, V, T) bool, False where a value is missing or is padding.
    known: (B, V, T) bool, False on the horizon: steps the network is to forecast.
    groups: (B, V) int64 of at least 0; variates of a row with the same number see one another.
    Values that are not both observed and known are never read: anything may stand there.
    """

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.config = config
        width, inner = config.d_model, 4 * config.d_model
        self.patch_proj = ResidualMLP(2 * config.patch_size, inner, width)
        self.transformer = Transformer(config)
        head = ResidualMLP(width, inner, config.patch_size * len(KNOTS))
        # The nesting is that of the published names, output_head.param_projection.proj.
        self.output_head = nn.ModuleDict({"param_projection": nn.ModuleDict({"proj": head})})
        self._initialise()

    def _initialise(self) -> None:
        """The published start (unit normal weights, no biases), folded."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features ** -power(name))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forecast(self, values: Tensor, observed: Tensor, groups: Tensor, horizon: int) -> Tensor:
        """Sorted quantiles (B, V, horizon, 9) of the steps after T, in the values' own unit.

        One pass with the horizon masked. The values of the last patch are taken as observed, as
        the published forecast does, so a gap there is the caller's to fill. A quantile that
        overflows float32 is infinite. Raises ValueError if T is not a positive multiple of P.
        """
        patch, length = self.config.patch_size, values.shape[-1]
        if length == 0 or length % patch or horizon < 1:
            raise ValueError(
                f"cannot forecast {horizon} steps from {length}: at least 1 step is forecast, "
                f"from a positive multiple of {patch}"
            )
        patches = -(-horizon // patch)
        observed = torch.cat(
            (observed[..., :-patch], torch.ones_like(observed[..., -patch:])), dim=-1
        )
        # The last forecast patch is read off the position before it, and none looks ahead: its
        # own position is not computed.
        ahead = (0, (patches - 1) * patch)
        states, loc, scale = self.hidden(
            F.pad(values, ahead),
            F.pad(observed, ahead),
            F.pad(torch.ones_like(observed), ahead),
            groups,
        )
        units = self.readout(states[:, :, -patches:])  # (B, V, patches, P, 9)
        quantiles = from_units(units, loc[:, :, -patches:], scale[:, :, -patches:])
        return quantiles.sort(dim=-1).values.flatten(2, 3)[:, :, :horizon]

    def hidden(
        self, values: Tensor, observed: Tensor, known: Tensor, groups: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised states (B, V, N, D) for `readout`, and loc and scale (B, V, N)."""
        readable, patch = observed & known, self.config.patch_size
        scaled, loc, scale = self.scaled(values, readable)
        hidden_steps = patched(~readable, patch).to(scaled.dtype)
        x = self.patch_proj(torch.cat((patched(scaled, patch), hidden_steps), dim=-1))
        without = ~patched(observed, patch).any(-1) & patched(known, patch).all(-1)  # (B, V, N)
        ids = groups[..., None].masked_fill(without, NO_GROUP)
        states: Tensor = self.transformer(x.to(self.patch_proj.linear1.weight.dtype), ids)
        return states, loc, scale

    def readout(self, states: Tensor) -> Tensor:
        """Any choice of states (..., D) -> quantiles (..., P, 9) of the patch after each, unsorted.

        They are in the units that `to_units` takes values to, and at least float32, whatever the
        weights are.
        """
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        out: Tensor = self.output_head.get_submodule("param_projection.proj")(wide)
        return torch.unflatten(out, -1, (self.config.patch_size, len(KNOTS)))

    def scaled(self, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values in the units of their patch (`to_units`), 0 where they may not be read.

        known: (B, V, T) bool, what may be read. Returns the scaled values (B, V, T), and loc and
        scale (B, V, N): mean and standard deviation of all known values up to each patch's end.
        """
        mean, variance = running_moments(values, known, self.config.patch_size)
        loc = mean.to(values.dtype)
        scale = variance.sqrt().clamp(min=MIN_SCALE).to(values.dtype)
        units = to_units(patched(values, self.config.patch_size), loc, scale).flatten(-2)
        return units.masked_fill(~known, 0), loc, scale


def to_units(values: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Values (B, V, N, ...) in the network's units, those of each patch's loc, scale (B, V, N)."""
    tail = (...,) + (None,) * (values.ndim - loc.ndim)
    return ((values - loc[tail]) / scale[tail]).asinh()


def from_units(units: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `to_units`."""
    tail = (...,) + (None,) * (units.ndim - loc.ndim)
    return units.sinh() * scale[tail] + loc[tail]
