"""Which rows still share a history: rows that have drawn the same tokens are computed once.

Settings share their random numbers, so their rows often draw the same token, and a model that
is sure of itself makes them agree for long. Rows start with one history, the context alone, and
part when they draw differently; what has parted never meets again. All histories of a window
read one set of keys and values for the context; only what they drew themselves is kept for each.

Axes: N rows, H histories, nh heads, L context positions, S own positions, hs head width.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

SEGMENT = 8
"""Positions kept in one piece of memory: a piece is read from one end to the other, while the
filled part of a larger one would be read in strides."""


class Parting(NamedTuple):
    """What a draw did to the histories.

    tokens: (H,) int64, the token each history now ends with.
    first: number of the first history that is new; they follow one another from there.
    sources: (new,) int64, the history each new one goes on from.
    """

    tokens: Tensor
    first: int
    sources: Tensor


class Histories:
    """The history of each row; `row` is (N,) int64, values 0 .. count - 1."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.row = torch.zeros(rows, dtype=torch.int64, device=device)
        self.count = 1

    def part(self, tokens: Tensor, vocabulary: int) -> Parting:
        """Take one drawn token a row (N,) into the histories.

        Of the rows that shared a history, those with the smallest token keep its number; every
        other token makes a new one.
        """
        keys, of_row = torch.unique(self.row * vocabulary + tokens, return_inverse=True)
        parent = keys // vocabulary
        keeps = torch.ones_like(keys, dtype=torch.bool)
        keeps[1:] = parent[1:] != parent[:-1]
        number = torch.where(keeps, parent, self.count - 1 + (~keeps).cumsum(0))
        drawn = torch.empty_like(keys)
        drawn[number] = keys % vocabulary
        parting = Parting(tokens=drawn, first=self.count, sources=parent[~keeps])
        self.row, self.count = number[of_row], len(keys)
        return parting


class Prefix(NamedTuple):
    """Keys and values of the context in one layer, each (nh, L, hs)."""

    keys: Tensor
    values: Tensor


class HistoryCache:
    """Keys and values of one layer that histories see: their window's prefix and their own.

    Histories are numbered from 0. prefix: of their window. histories: the most there can be.
    Queries come already scaled by 1/sqrt(hs).
    """

    def __init__(self, prefix: Prefix, *, histories: int) -> None:
        self.prefix = prefix
        self.added = 0
        heads, _, width = prefix.keys.shape
        self._shape = (histories, heads, SEGMENT, width)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def branch(self, first: int, sources: Tensor) -> None:
        """Start histories first, first + 1, ... as copies of those in `sources` (count,)."""
        end = first + len(sources)
        for segment in (*self._keys, *self._values):
            segment[first:end] = segment[sources]

    def add(self, k: Tensor, v: Tensor) -> None:
        """Add one position to histories 0 .. H - 1; k, v: (H, nh, hs)."""
        place = self.added % SEGMENT
        for segments, new in ((self._keys, k), (self._values, v)):
            if place == 0:
                # Not cleared: numbers of no history yet are padding, which no other reads.
                segments.append(new.new_empty(self._shape))
            segments[-1][: len(new), :, place] = new
        self.added += 1

    def read(self, q: Tensor) -> Tensor:
        """Attend q (H, nh, hs), one query of each history, to all there is; returns the same shape.

        Prefix and own positions are attended to apart and weighted by their shares of the
        softmax, which the logarithms of its two denominators give.
        """
        q = q.contiguous()  # once, where every product below would
        of_prefix, log_prefix = _attend(q, self.prefix)
        if not self.added:
            return of_prefix
        keys, values = self._filled(self._keys, len(q)), self._filled(self._values, len(q))
        scores = torch.cat([q[:, :, None] @ k.transpose(-1, -2) for k in keys], dim=-1)
        peak = scores.amax(-1, keepdim=True)
        weights = (scores - peak).exp_()  # (H, nh, 1, S), not yet divided by their sum
        total = weights.sum(-1, keepdim=True)
        log_own = (total.log() + peak)[:, :, 0, 0]  # (H, nh)
        pieces = zip(torch.split(weights / total, SEGMENT, dim=-1), values, strict=True)
        of_own = functools.reduce(torch.add, (weight @ value for weight, value in pieces))
        # A sigmoid, but torch's own rounds the last few of its numbers otherwise than the rest.
        share = 1 / (1 + (log_own - log_prefix).exp_())
        return torch.lerp(of_own[:, :, 0], of_prefix, share[..., None])

    def _filled(self, segments: list[Tensor], histories: int) -> list[Tensor]:
        """What the first histories have added, (H, nh, at most SEGMENT, hs) each."""
        last = (self.added - 1) % SEGMENT + 1
        return [s[:histories] for s in segments[:-1]] + [segments[-1][:histories, :, :last]]


def _attend(q: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
    """Attend q (H, nh, hs) to a prefix: (H, nh, hs) and the log of the denominators (H, nh)."""
    by_head = q.transpose(0, 1)  # (nh, H, hs)
    if q.device.type == "cpu":
        # What scaled_dot_product_attention runs on a CPU, asked for the denominators too.
        out, logs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            by_head[None], prefix.keys[None], prefix.values[None], scale=1.0
        )
        return out[0].transpose(0, 1), logs[0].transpose(0, 1)
    scores = by_head @ prefix.keys.transpose(-1, -2)  # (nh, H, L)
    logs = scores.logsumexp(-1)
    out = (scores - logs[..., None]).exp_() @ prefix.values
    return out.transpose(0, 1), logs.transpose(0, 1)
