"""The parts that Toto 2 is made of: attention along time and across variates, and their frame.

Parameter names and numbers as in DataDog/toto, toto2/model.py (Apache-2.0), except that u-muP's
multipliers (arXiv:2407.17465) are in the weights of linear layers, see `folding`.

Axes: B batch, V variates, N positions (patches), D model width, R rows and S places of an
attention (R = B * V and S = N along time, B * N and V across variates), nh heads, ng heads of
keys and values, hs head width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain_assets.models.toto.toto2_config import Toto2Config

ROTARY_BASE = 10_000.0
XPOS_BASE = 256.0
SILU_GAIN = (2 / (1 - 1 / math.pi)) ** 0.4 * 2**0.2
"""u-muP's factor on a SiLU, about 1.767 (its empirical fit of what restores unit variance)."""


class Transformer(nn.Module):
    """Layers along time and layers across variates, taking turns as the config says."""

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.out_norm = _norm(config, config.d_model, config.norm_include_weight)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """x: (B, V, N, D); ids: (B, V, N), the group of each patch. Returns (B, V, N, D)."""
        batch, variates, positions = ids.shape
        # Always a mask, even where all ids are equal: which instructions compute a row may not
        # depend on the rows beside it.
        same = ids[..., None] == ids[..., None, :]  # (B, V, N, N)
        along = same.tril().flatten(0, 1)[:, None]  # (B * V, 1, N, N)
        places = ids.transpose(1, 2).flatten(0, 1)  # (B * N, V)
        across = (places[..., None] == places[:, None])[:, None]  # (B * N, 1, V, V)
        turns = rotations(positions, self.config, x.device)
        for index, layer in enumerate(self.layers):
            if self.config.is_variate_layer(index):
                rows = layer(x.transpose(1, 2).flatten(0, 1), across, None)
                x = rows.unflatten(0, (batch, positions)).transpose(1, 2)
            else:
                x = layer(x.flatten(0, 1), along, turns).unflatten(0, (batch, variates))
        out: Tensor = self.out_norm(x)
        return out


Turns = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Cosines and sines (N, hs / 2) that queries and keys are rotated by."""


class Layer(nn.Module):
    """Attention and feed-forward, each normalised before and mixed into the stream after.

    The weights of the mixes are buffers of the checkpoint, and those stored there are used.
    """

    attn_tau: Tensor
    mlp_tau: Tensor

    def __init__(self, config: Toto2Config, index: int) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.ffn = FeedForward(config)
        self.norm1 = _norm(config, config.d_model, config.norm_include_weight)
        self.norm2 = _norm(config, config.d_model, config.norm_include_weight)
        self.register_buffer("attn_tau", torch.tensor(residual_weight(config, 2 * index)))
        self.register_buffer("mlp_tau", torch.tensor(residual_weight(config, 2 * index + 1)))

    def forward(self, x: Tensor, mask: Tensor, turns: Turns | None) -> Tensor:
        """x: (R, S, D); mask: (R, 1, S, S) bool, True where a place may look. Returns as x."""
        x = _mixed(x, self.attn(self.norm1(x), mask, turns), self.attn_tau)
        return _mixed(x, self.ffn(self.norm2(x)), self.mlp_tau)


def _mixed(x: Tensor, update: Tensor, tau: Tensor) -> Tensor:
    """A stream of unit variance stays so: 1 part of x to tau parts of an update like it."""
    norm = (1 + tau.square()).sqrt()
    return x * (1 / norm) + update * (tau / norm)


class Attention(nn.Module):
    """Multi-head self-attention; queries and keys are rotated along time alone."""

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.config = config
        heads, groups = config.num_heads, config.num_groups
        self.widths = [heads * config.qk_dim, groups * config.qk_dim, groups * config.v_dim]
        self.in_proj = nn.Linear(config.d_model, sum(self.widths), bias=config.attn_bias)
        self.out_proj = nn.Linear(heads * config.v_dim, config.d_model, bias=config.attn_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.q_norm = _norm(config, config.qk_dim, config.qk_norm_include_weight)
            self.k_norm = _norm(config, config.qk_dim, config.qk_norm_include_weight)
        self._pds = PerDimScale(config.qk_dim) if config.per_dim_scale else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor, turns: Turns | None) -> Tensor:
        """Arguments as `Layer`; returns (R, S, D)."""
        heads, groups = self.config.num_heads, self.config.num_groups
        q, k, v = self.in_proj(x).split(self.widths, dim=-1)
        q = self._pds(self.q_norm(_split(q, heads)))  # (R, nh, S, hs)
        k, v = self.k_norm(_split(k, groups)), _split(v, groups)  # (R, ng, S, hs)
        if turns is not None:
            q, k = _rotated(q, *turns[0]), _rotated(k, *turns[1])
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            scale=1 / self.config.qk_dim,  # muP: not the root
            enable_gqa=self.config.heads_per_group > 1,
        )
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out


class PerDimScale(nn.Module):
    """A positive factor for each dimension of a head, 1 where the parameter is 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.per_dim_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., hs)."""
        return x * (F.softplus(self.per_dim_scale) / math.log(2))


class FeedForward(nn.Module):
    """fc2(gate * silu(x)), where fc1 gives the gate and x."""

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, 2 * config.d_ff, bias=config.mlp_bias)
        self.fc2 = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, x = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.fc2(gate * F.silu(x))
        return out


def residual_weight(config: Toto2Config, branch: int) -> float:
    """tau of a residual branch: 2 l for the attention of layer l, 2 l + 1 for its feed-forward.

    u-muP's rule (arXiv:2407.17465, appendix G): every attention adds the same variance to the
    stream's start, every feed-forward too, residual_attn_ratio is their relation and
    residual_mult scales both.
    """
    mlp = 2 * config.residual_mult**2 / (1 + config.residual_attn_ratio**2)
    attention = config.residual_attn_ratio**2 * mlp
    before = config.num_layers + -(-branch // 2) * attention + branch // 2 * mlp
    return math.sqrt((mlp if branch % 2 else attention) / before)


def rotations(positions: int, config: Toto2Config, device: torch.device) -> Turns:
    """Rotary factors of the first half of each head, with xPos' decay if the config has it.

    Su et al., arXiv:2104.09864; Sun et al., arXiv:2212.10554. Queries grow and keys shrink with
    the position, so that the decay of their product depends on the distance alone.
    """
    width = config.qk_dim // 2
    even = torch.arange(0, width, 2, device=device).float()
    steps = torch.arange(positions, device=device).float()
    angles = torch.outer(steps, ROTARY_BASE ** -(even / width))  # (N, hs / 4)
    decay = torch.ones_like(angles)
    if config.use_xpos:
        centred = (steps - positions // 2) / XPOS_BASE
        decay = ((even + 0.4 * width) / (1.4 * width)) ** centred[:, None]
    cos, sin, decay = (t.repeat_interleave(2, dim=-1) for t in (angles.cos(), angles.sin(), decay))
    return (cos * decay, sin * decay), (cos / decay, sin / decay)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (2 i, 2 i + 1) in the first half of the heads of x (R, nh, N, hs)."""
    turning, rest = x.chunk(2, dim=-1)
    first, second = turning[..., 0::2], turning[..., 1::2]
    crossed = torch.stack((-second, first), dim=-1).flatten(-2)
    return torch.cat((turning * cos + crossed * sin, rest), dim=-1).type_as(x)


def _split(x: Tensor, heads: int) -> Tensor:
    """(R, S, nh * hs) -> (R, nh, S, hs)."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def _norm(config: Toto2Config, width: int, with_weight: bool) -> nn.RMSNorm:
    return nn.RMSNorm(width, eps=config.norm_eps, elementwise_affine=with_weight)


class ResidualMLP(nn.Module):
    """Two layers beside a linear path, both of the same weight: from and to patches.

    Computed in the precision of its input, whatever that of its weights: rounding values or
    quantiles to bfloat16 would cost more than these few layers. So they are not called as
    modules, and no adapter may wrap them.
    """

    def __init__(self, in_dim: int, inner: int, out_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_dim, inner)
        self.linear2 = nn.Linear(inner, out_dim)
        self.skip_proj = nn.Linear(in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        with torch.autocast(x.device.type, enabled=False):
            inner = SILU_GAIN * F.silu(_linear(self.linear1, x))
            return (_linear(self.linear2, inner) + _linear(self.skip_proj, x)) / math.sqrt(2)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
