"""What Toto 1 keeps of patches it has seen: a window's once, and what each of its paths added.

Axes: B windows, R paths of each, V variates, nh heads, L patches of the window, S of a path,
T newest patches, hs head width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class PatchCache:
    """One cache for each layer, and how many patches they hold."""

    def __init__(self, layers: int) -> None:
        self.length = 0
        self.layers = [LayerCache() for _ in range(layers)]

    def fork(self) -> PatchCache:
        """A cache of the same windows, without the patches that paths have added. Copies nothing.

        So one window serves any number of draws: fork, then add.
        """
        twin = PatchCache(0)
        twin.layers = [layer.fork() for layer in self.layers]
        twin.length = max((layer.window_length for layer in twin.layers), default=0)
        return twin


class LayerCache:
    """Keys and values of one attention layer along time."""

    def __init__(self) -> None:
        self._window: tuple[Tensor, Tensor] | None = None  # (B, V, nh, L, hs)
        self._added: tuple[Tensor, Tensor] | None = None  # (B R, V, nh, S, hs)

    @property
    def window_length(self) -> int:
        """L, 0 before the first call and for a layer that has no time axis."""
        return 0 if self._window is None else self._window[0].shape[3]

    def fork(self) -> LayerCache:
        """The same window with nothing added to it."""
        twin = LayerCache()
        twin._window = self._window
        return twin

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v, then attend q causally over everything kept.

        q, k, v: (B, V, nh, T, hs) at the first call, the window; (B R, V, nh, T, hs) after it, the
        paths of a window adjacent. Returns the shape of q.
        """
        if self._window is None:
            self._window = (k, v)
            return causal_attention(q, k, v)
        if self._added is not None:
            k, v = (torch.cat(pair, dim=3) for pair in zip(self._added, (k, v), strict=True))
        self._added = (k, v)
        return _attend_shared(q, *self._window, k, v)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Patch t attends to patches up to t; all (B, V, nh, T, hs), scaled by 1/sqrt(hs)."""
    shape = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # fused kernels take four axes
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return torch.unflatten(y, 0, shape)


def _attend_shared(q: Tensor, keys: Tensor, values: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
    """Attend q (B R, V, nh, T, hs), the paths' newest, to their window and causally to their own.

    keys, values: (B, V, nh, L, hs). own_k, own_v: (B R, V, nh, S, hs).
    """
    windows, length, steps = keys.shape[0], keys.shape[3], q.shape[3]
    q = q / math.sqrt(q.shape[-1])
    # One product a window serves all its paths: (B, V, nh, R T, hs) x (B, V, nh, hs, L).
    on_window = _spread(_gathered(q, windows) @ keys.mT, steps)
    on_own = q @ own_k.mT  # (B R, V, nh, T, S)
    later = torch.ones_like(on_own[0, 0, 0], dtype=torch.bool).triu(own_k.shape[3] - steps + 1)
    scores = torch.cat((on_window, on_own.masked_fill(later, -math.inf)), dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).type_as(q)  # (B R, V, nh, T, L + S)
    of_window = _spread(_gathered(weights[..., :length], windows) @ values, steps)
    return of_window + weights[..., length:] @ own_v


def _gathered(x: Tensor, windows: int) -> Tensor:
    """(B R, V, nh, T, x) -> (B, V, nh, R T, x)."""
    return torch.unflatten(x, 0, (windows, -1)).movedim(1, 3).flatten(3, 4)


def _spread(x: Tensor, steps: int) -> Tensor:
    """(B, V, nh, R T, x) -> (B R, V, nh, T, x)."""
    return torch.unflatten(x, 3, (-1, steps)).movedim(3, 1).flatten(0, 1)
