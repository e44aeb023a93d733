"""Kronos: an autoregressive transformer over bars, each bar one coarse and one fine token.

The next bar is predicted in two draws: s1 from the hidden state, then s2 from a
dependency-aware layer that looks back over all hidden states with the drawn s1 as its query.
Shi et al., "Kronos: A Foundation Model for the Language of Financial Markets",
arXiv:2508.02739; parameter names and numbers as in shiyu-coder/Kronos, model/kronos.py and
model/module.py (MIT), so that its checkpoints load and its forecasts are reproduced.

Axes: B batch, T positions, D model width, nh heads, hs head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrain_assets.models.kronos.config import DEPENDENCY_HEADS, NetworkConfig
from retrain_assets.models.kronos.layers import (
    Block,
    LayerCache,
    RMSNorm,
    Rotary,
    causal_attention,
    join_heads,
    run_blocks,
    split_heads,
)

STAMP_SIZES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}
"""Calendar fields of a bar in the order of a stamp's last axis, and their table sizes."""


class KronosNetwork(nn.Module):
    """Distributions of the next bar's two tokens at every position.

    s1, s2: (B, T) int64, the tokens of the bars seen.
    stamps: (B, T, 5) int64, minute, hour, weekday (Monday 0), day and month of those bars.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.time_emb = TimeEmbedding(config)
        self.token_drop = nn.Dropout(config.token_dropout_p)
        self.transformer = nn.ModuleList(
            Block(
                config.d_model,
                config.n_heads,
                config.ff_dim,
                ffn_dropout_p=config.ffn_dropout_p,
                attn_dropout_p=config.attn_dropout_p,
                resid_dropout_p=config.resid_dropout_p,
            )
            for _ in range(config.n_layers)
        )
        self.norm = RMSNorm(config.d_model)
        self.dep_layer = DependencyLayer(config.d_model)
        self.head = TokenHeads(config)
        self.apply(_initialise_linear)

    def forward(
        self, s1: Tensor, s2: Tensor, stamps: Tensor, s1_next: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced logits of every next bar, causal in train and eval mode alike.

        s1_next: (B, T), the coarse token of bar t + 1 at position t. Returns the logits of
        s1 (B, T, 2**s1_bits) and of s2 given s1_next (B, T, 2**s2_bits) of bar t + 1.
        """
        hidden = self.hidden(s1, s2, stamps)
        return self.s1_logits(hidden), self.s2_logits(hidden, s1_next)

    def hidden(
        self,
        s1: Tensor,
        s2: Tensor,
        stamps: Tensor,
        start: int = 0,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Normalised hidden states (B, T, D).

        start, caches: first position and one cache a block, to continue a sequence whose
        earlier positions the caches hold.
        """
        x = self.token_drop(self.embedding(s1, s2) + self.time_emb(stamps))
        out: Tensor = self.norm(run_blocks(self.transformer, x, start, caches))
        return out

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) -> logits of the next bar's s1 (..., 2**s1_bits)."""
        logits: Tensor = self.head.proj_s1(hidden)
        return logits

    def s2_logits(self, hidden: Tensor, s1_next: Tensor) -> Tensor:
        """Hidden states (B, T, D) and the next bars' s1 (B, T) -> logits of s2 (B, T, 2**s2_bits).

        Position t sees the hidden states of positions up to t and no later one.
        """
        logits: Tensor = self.head.proj_s2(self.dependent(hidden, s1_next))
        return logits

    def dependent(self, hidden: Tensor, s1_next: Tensor) -> Tensor:
        """What the s2 head reads, (B, T, D); arguments as `s2_logits`."""
        out: Tensor = self.dep_layer(hidden, self.embedding.emb_s1(s1_next))
        return out


class TokenEmbedding(nn.Module):
    """Both tokens of a bar, embedded and projected to one vector."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.emb_s1 = nn.Embedding(2**config.s1_bits, config.d_model)
        self.emb_s2 = nn.Embedding(2**config.s2_bits, config.d_model)
        self.fusion_proj = nn.Linear(2 * config.d_model, config.d_model)
        for table in (self.emb_s1, self.emb_s2):
            nn.init.normal_(table.weight, std=config.d_model**-0.5)

    def forward(self, s1: Tensor, s2: Tensor) -> Tensor:
        """Indices s1, s2 (B, T) of the two halves of a token to embeddings (B, T, D)."""
        both = torch.cat((self.emb_s1(s1), self.emb_s2(s2)), dim=-1) * self.scale  # (B, T, 2D)
        out: Tensor = self.fusion_proj(both)
        return out


class TimeEmbedding(nn.Module):
    """Sum of one vector for each calendar field, (B, T, 5) -> (B, T, D)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        for field, size in STAMP_SIZES.items():
            table: nn.Module
            if config.learn_te:
                table = nn.Embedding(size, config.d_model)
                nn.init.normal_(table.weight, std=config.d_model**-0.5)
            else:
                table = SinusoidEmbedding(size, config.d_model)
            self.add_module(f"{field}_embed", table)

    def forward(self, stamps: Tensor) -> Tensor:
        """Calendar fields (B, T, 5) to the sum of their embeddings (B, T, D)."""
        # This order of summation is the published one; another would round differently.
        order = ("hour", "weekday", "day", "month", "minute")
        column = {field: i for i, field in enumerate(STAMP_SIZES)}
        vectors = [self.get_submodule(f"{f}_embed")(stamps[..., column[f]]) for f in order]
        out: Tensor = vectors[0]
        for vector in vectors[1:]:
            out = out + vector
        return out


class SinusoidEmbedding(nn.Module):
    """A fixed table of sines and cosines, never trained (arXiv:1706.03762, section 3.5)."""

    def __init__(self, size: int, d_model: int) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(0, d_model, 2).float() * (-math.log(10_000.0) / d_model))
        angles = torch.arange(size).float()[:, None] * rates  # (size, D/2)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (size, D)
        self.emb = nn.Embedding(size, d_model)
        self.emb.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, index: Tensor) -> Tensor:
        """Embedding of each index."""
        out: Tensor = self.emb(index)
        return out


class DependencyLayer(nn.Module):
    """Conditions the fine token on the coarse one: cross-attention from s1 to hidden states.

    Queries and keys are not rotated and the s1 embedding is not scaled: this is what the
    published code computes when it forecasts (one query, so position 0). Its training mode
    rotates and its evaluation mode on whole sequences sees the future; neither is kept here.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.cross_attn = DependencyAttention(d_model)
        self.norm = RMSNorm(d_model)

    def forward(self, hidden: Tensor, s1_vectors: Tensor) -> Tensor:
        """hidden, s1_vectors: (B, T, D), the embedded s1 predicted at each position."""
        attention = self.cross_attn
        q = attention.queries(s1_vectors)
        k, v = attention.keys_values(hidden)
        return self.combine(hidden, causal_attention(q, k, v))

    def combine(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """hidden (B, T, D) and what was attended (B, nh, T, hs) -> input of the s2 head."""
        out: Tensor = self.norm(hidden + self.cross_attn.out_proj(join_heads(attended)))
        return out


class DependencyAttention(nn.Module):
    """Projections of the dependency-aware layer; its rotary buffer is only carried along."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rotary = Rotary(d_model // DEPENDENCY_HEADS)  # in published files, never applied

    def queries(self, s1_vectors: Tensor) -> Tensor:
        """Embedded s1 tokens (B, T, D) -> queries (B, nh, T, hs)."""
        return split_heads(self.q_proj(s1_vectors), DEPENDENCY_HEADS)

    def keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, D) -> keys and values, each (B, nh, T, hs)."""
        return (
            split_heads(self.k_proj(hidden), DEPENDENCY_HEADS),
            split_heads(self.v_proj(hidden), DEPENDENCY_HEADS),
        )


class TokenHeads(nn.Module):
    """Hidden states to token logits."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.proj_s1 = nn.Linear(config.d_model, 2**config.s1_bits)
        self.proj_s2 = nn.Linear(config.d_model, 2**config.s2_bits)


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
