"""Layer caches of sampler and training: a window's prefix is kept once, its rows keep the rest.

Rows are paths of the same windows. All of them read one set of keys and values for the
context; only what they drew themselves is kept per row.

Axes: G groups (each the rows of one window), R rows of a group, N = G x R, nh heads, T newest
positions, L context positions, S further positions, hs head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retrain_assets.models.kronos.layers import causal_attention


class PrefixCache:
    """Keeps the keys and values of one window's context while it is computed."""

    keys: Tensor  # (1, nh, L, hs)
    values: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v and attend causally; q, k, v: (1, nh, L, hs)."""
        self.keys, self.values = k, v
        return causal_attention(q, k, v)


class RowCache:
    """Keys and values that N rows see in one layer: their window's prefix and their own.

    keys, values: the prefixes, (G, nh, L, hs). rows: R. size: S, the most positions to add.
    """

    def __init__(self, keys: Tensor, values: Tensor, *, rows: int, size: int) -> None:
        groups, heads, _, width = keys.shape
        self.keys, self.values, self.rows = keys, values, rows
        self.added = 0
        self._keys = keys.new_empty(groups * rows, heads, size, width)
        self._values = torch.empty_like(self._keys)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Add k and v, then attend q causally to all; q, k, v: (N, nh, T, hs)."""
        self.add(k, v)
        return self.read(q)

    def add(self, k: Tensor, v: Tensor) -> None:
        """Add T positions a row; k, v: (N, nh, T, hs)."""
        end = self.added + k.shape[2]
        self._keys[:, :, self.added : end] = k
        self._values[:, :, self.added : end] = v
        self.added = end

    def read(self, q: Tensor) -> Tensor:
        """Attend q (N, nh, T, hs), the last T positions there are, causally to all positions."""
        _, _, steps, width = q.shape
        length = self.keys.shape[2]
        q = q / math.sqrt(width)
        own_keys, own_values = self._keys[:, :, : self.added], self._values[:, :, : self.added]
        # One product a window serves all its rows: (G, nh, R T, hs) x (G, nh, hs, L).
        on_prefix = self._grouped(q) @ self.keys.transpose(-1, -2)
        on_own = q @ own_keys.transpose(-1, -2)  # (N, nh, T, added)
        if steps > 1:
            on_own = on_own.masked_fill(_later(steps, self.added, q.device), -math.inf)
        scores = torch.cat((self._ungrouped(on_prefix, steps), on_own), dim=-1)
        weights = scores.softmax(-1)  # (N, nh, T, L + added)
        of_prefix = self._grouped(weights[..., :length]) @ self.values
        return self._ungrouped(of_prefix, steps) + weights[..., length:] @ own_values

    def _grouped(self, x: Tensor) -> Tensor:
        """(N, nh, T, x) -> (G, nh, R T, x)."""
        _, heads, steps, width = x.shape
        x = x.view(-1, self.rows, heads, steps, width).transpose(1, 2)
        return x.reshape(-1, heads, self.rows * steps, width)

    def _ungrouped(self, x: Tensor, steps: int) -> Tensor:
        """(G, nh, R T, x) -> (N, nh, T, x)."""
        groups, heads, _, width = x.shape
        x = x.view(groups, heads, self.rows, steps, width).transpose(1, 2)
        return x.reshape(groups * self.rows, heads, steps, width)


def _later(steps: int, added: int, device: torch.device) -> Tensor:
    """True where a row's own position is later than the query's, (T, added)."""
    position = torch.arange(added, device=device)
    return position > position[added - steps :, None]
