"""The blocks that Kronos' network and tokenizer are made of.

Pre-norm transformer blocks: RMSNorm (arXiv:1910.07467), rotary position embedding
(arXiv:2104.09864) and a SiLU-gated feed-forward (arXiv:2002.05202). Parameter names and
numbers follow shiyu-coder/Kronos, model/module.py (MIT), so that its checkpoints load.

Axes: B batch, T positions, D model width, nh heads, hs head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerCache(Protocol):
    """Keys and values one attention layer has seen, and the attention over all of them."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v, then attend q causally over everything kept.

        q, k, v: (B, nh, T, hs), the T newest positions. Returns (B, nh, T, hs).
        """
        ...


class RMSNorm(nn.Module):
    """Scale to unit root mean square, computed in fp32 whatever the input's precision."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) over its root mean square, computed in 32 bits."""
        wide = x.float()
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return unit.type_as(x) * self.weight


class Rotary(nn.Module):
    """Rotates pairs (i, i + hs/2) of a head by an angle that grows with the position.

    Angles are computed at each call from explicit positions: nothing is remembered that
    could be of another length or on another device.
    """

    inv_freq: Tensor

    def __init__(self, head_dim: int, theta: float = 10_000.0) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2).float() / head_dim
        self.register_buffer("inv_freq", 1.0 / theta**exponent)  # (hs/2,), part of checkpoints

    def forward(self, q: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Rotate q and k (..., T, hs), whose T positions are start, start + 1, ..."""
        steps = torch.arange(start, start + q.shape[-2], device=q.device, dtype=torch.float32)
        angles = torch.outer(steps, self.inv_freq.float()).repeat(1, 2)  # (T, hs)
        cos, sin = angles.cos(), angles.sin()
        return _rotated(q, cos, sin), _rotated(k, cos, sin)


class Attention(nn.Module):
    """Causal multi-head self-attention on rotated queries and keys."""

    def __init__(
        self, d_model: int, n_heads: int, attn_dropout_p: float, resid_dropout_p: float
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attn_dropout_p = attn_dropout_p
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rotary = Rotary(d_model // n_heads)
        self.resid_dropout = nn.Dropout(resid_dropout_p)

    def forward(self, x: Tensor, start: int = 0, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D) at positions start, start + 1, ...; returns (B, T, D)."""
        q, k, v = (
            split_heads(proj(x), self.n_heads) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.rotary(q, k, start)  # (B, nh, T, hs)
        if cache is None:
            y = causal_attention(q, k, v, self.attn_dropout_p if self.training else 0.0)
        else:
            y = cache.attend(q, k, v)
        out: Tensor = self.resid_dropout(self.out_proj(join_heads(y)))
        return out


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, d_model: int, ff_dim: int, dropout_p: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, ff_dim, bias=False)
        self.w3 = nn.Linear(d_model, ff_dim, bias=False)
        self.w2 = nn.Linear(ff_dim, d_model, bias=False)
        self.ffn_dropout = nn.Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) through the gated feed-forward layer."""
        out: Tensor = self.ffn_dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream after."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        *,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(d_model)
        self.self_attn = Attention(d_model, n_heads, attn_dropout_p, resid_dropout_p)
        self.norm2 = RMSNorm(d_model)
        self.ffn = FeedForward(d_model, ff_dim, ffn_dropout_p)

    def forward(self, x: Tensor, start: int = 0, cache: LayerCache | None = None) -> Tensor:
        """x: (B, T, D) at positions start, start + 1, ...; returns (B, T, D)."""
        x = x + self.self_attn(self.norm1(x), start, cache)
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


def run_blocks(
    blocks: Iterable[nn.Module],
    x: Tensor,
    start: int = 0,
    caches: Sequence[LayerCache] | None = None,
) -> Tensor:
    """Pass x (B, T, D) through the blocks, each with its own cache if there are caches."""
    for i, block in enumerate(blocks):
        x = block(x, start, None if caches is None else caches[i])
    return x


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, T, D) -> (B, nh, T, hs)."""
    return x.view(*x.shape[:-1], n_heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, nh, T, hs) -> (B, T, D)."""
    return x.transpose(1, 2).flatten(2)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    """Position t attends to positions up to t; all (B, nh, T, hs), scaled by 1/sqrt(hs)."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=True)
