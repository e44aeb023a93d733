"""The layers that Toto 1 is made of, along time and across variates.

Pre-norm transformer layers: RMSNorm (arXiv:1910.07467), rotary position embedding with decay (xPos,
arXiv:2212.10554) and a SiLU-gated feed-forward (arXiv:2002.05202). Parameter names and numbers
follow DataDog/toto, toto/model (Apache-2.0), so that its checkpoints load.

Axes: B windows, V variates, N patches, D model width, nh heads, hs head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrain_assets.models.toto.toto1_cache import LayerCache, PatchCache, causal_attention
from retrain_assets.models.toto.toto1_config import Toto1Config

XPOS_BASE = 512
ROTARY_THETA = 10_000.0


class Transformer(nn.Module):
    """Layers along time and across variates; there is no norm after the last."""

    def __init__(self, config: Toto1Config) -> None:
        super().__init__()
        self.head_width = config.embed_dim // config.num_heads
        self.layers = nn.ModuleList(
            Layer(config, SpaceAttention if config.is_spacewise(i) else TimeAttention)
            for i in range(config.num_layers)
        )

    def forward(self, x: Tensor, groups: Tensor, cache: PatchCache | None) -> Tensor:
        """x: (B, V, N, D) -> (B, V, N, D); groups and cache as `Toto1Network.hidden`."""
        start = 0 if cache is None else cache.length
        positions = torch.arange(start, start + x.shape[2], device=x.device)
        together = groups[:, :, None] == groups[:, None, :]  # (B, V, V)
        place = Place(Turn.at(positions, self.head_width), together)
        for i, layer in enumerate(self.layers):
            x = layer(x, place, None if cache is None else cache.layers[i])
        if cache is not None:
            cache.length += x.shape[2]
        return x


class Layer(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream after."""

    def __init__(self, config: Toto1Config, attention: type[Attention]) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.embed_dim)
        self.attention = attention(config.embed_dim, config.num_heads, config.dropout)
        self.norm2 = RMSNorm(config.embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(config.embed_dim, 2 * config.mlp_hidden_dim),
            GatedSiLU(),
            nn.Linear(config.mlp_hidden_dim, config.embed_dim),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, place: Place, cache: LayerCache | None) -> Tensor:
        """x (B, V, patches, D) through attention, then through the feed-forward layer."""
        x = x + self.attention(self.norm1(x), place, cache)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class RMSNorm(nn.Module):
    """Scale to unit root mean square, computed in fp32 whatever the input's precision."""

    def __init__(self, width: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) over its root mean square, computed in 32 bits."""
        wide = x.float()
        unit = wide / (wide.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return unit.type_as(x) * self.scale


class GatedSiLU(nn.Module):
    """SiLU of the first half times the second half."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., 2 D) to (..., D): its second half, gated by the first."""
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class Attention(nn.Module):
    """Projections that attention along either axis shares."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.wQKV = nn.Linear(width, 3 * width)
        self.wO = nn.Linear(width, width)

    def forward(self, x: Tensor, place: Place, cache: LayerCache | None) -> Tensor:
        """x: (B, V, N, D) -> (B, V, N, D)."""
        # The published layout has heads innermost going in and outermost coming out.
        qkv = torch.unflatten(self.wQKV(x), -1, (3, -1, self.heads))  # (B, V, N, 3, hs, nh)
        q, k, v = qkv.permute(3, 0, 1, 5, 2, 4)  # each (B, V, nh, N, hs)
        y = self.attend(q, k, v, place, cache)
        out: Tensor = self.wO(y.transpose(2, 3).flatten(3))
        return out

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, place: Place, cache: LayerCache | None
    ) -> Tensor:
        """What the queries find; all (B, V, nh, N, hs)."""
        raise NotImplementedError

    @property
    def dropout_now(self) -> float:
        """Rate on attention weights in the present mode."""
        return self.dropout if self.training else 0.0


class TimeAttention(Attention):
    """Causal along the patches of each variate, by relative position."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, place: Place, cache: LayerCache | None
    ) -> Tensor:
        """Attention over the patches of each series; q, k, v (B, V, heads, patches, D)."""
        q, k = place.turn.queries(q), place.turn.keys(k)
        if cache is None:
            return causal_attention(q, k, v, self.dropout_now)
        return cache.attend(q, k, v)


class SpaceAttention(Attention):
    """Across the variates of a group at each patch; their order has no meaning."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, place: Place, cache: LayerCache | None
    ) -> Tensor:
        """Attention over the series at each patch; q, k, v (B, V, heads, patches, D)."""
        batch, _, _, patches, _ = q.shape
        mask = place.together[:, None, None].expand(-1, patches, -1, -1, -1).flatten(0, 1)
        q, k, v = (x.permute(0, 3, 2, 1, 4).flatten(0, 1) for x in (q, k, v))  # (B N, nh, V, hs)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout_now)
        return torch.unflatten(y, 0, (batch, patches)).permute(0, 3, 2, 1, 4)


class Turn(NamedTuple):
    """Rotary embedding with decay at given positions, (N, hs) each.

    The decay counts from position 0. Upstream counts it from the middle of what a call sees, so
    that keys it has cached decay from another zero than the queries that read them; there is no
    such difference here.
    """

    cos: Tensor
    sin: Tensor
    decay: Tensor

    @classmethod
    def at(cls, positions: Tensor, width: int) -> Turn:
        """positions: (N,). width: hs, even."""
        even = torch.arange(0, width, 2, device=positions.device).float()
        angles = positions[:, None] / ROTARY_THETA ** (even / width)
        angles = angles.repeat_interleave(2, dim=1)  # of pairs (2i, 2i + 1)
        base = (even + 0.4 * width) / (1.4 * width)
        # Not by pairs, but i and i + hs/2 alike: a quirk that the weights were trained with.
        decay = (base ** (positions[:, None] / XPOS_BASE)).repeat(1, 2)
        return cls(angles.cos(), angles.sin(), decay)

    def queries(self, q: Tensor) -> Tensor:
        """q: (..., N, hs)."""
        return self._rotated(q, self.decay)

    def keys(self, k: Tensor) -> Tensor:
        """k: (..., N, hs)."""
        return self._rotated(k, 1 / self.decay)

    def _rotated(self, x: Tensor, factor: Tensor) -> Tensor:
        wide = x.float()
        across = torch.stack((-wide[..., 1::2], wide[..., ::2]), dim=-1).flatten(-2)
        return ((wide * self.cos + across * self.sin) * factor).type_as(x)


class Place(NamedTuple):
    """Where the patches of a call stand: in time, and which variates see each other (B, V, V)."""

    turn: Turn
    together: Tensor
