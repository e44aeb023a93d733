"""Mean and variance of a series up to the end of each patch: what both networks scale by.

Axes: B windows, V variates, T steps, P steps of a patch, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patched(x: Tensor, patch: int) -> Tensor:
    """(..., T) -> (..., N, P). Raises ValueError if T is no whole number of patches."""
    if x.shape[-1] % patch:
        raise ValueError(f"{x.shape[-1]} steps are no whole number of patches of {patch}")
    return torch.unflatten(x, -1, (-1, patch))


def running_moments(values: Tensor, known: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (n - 1) of the known values up to the end of each patch.

    values, known: (B, V, T). Returns two (B, V, N) in float64, since prices are large against
    their changes; 0 where nothing is known yet. Patches are summed first, then each patch with
    those before it: cumsum would be shorter, but on a GPU it adds in no fixed order.
    """
    readable = values.masked_fill(~known, 0).double()
    x, there = (patched(t, patch) for t in (readable, known))  # (B, V, N, P)
    count = there.sum(-1).double()  # (B, V, N)
    centre = x.sum(-1) / count.clamp(min=1)
    within = (x - centre[..., None]).masked_fill(~there, 0).square().sum(-1)

    n = count.shape[-1]
    past = torch.ones(n, n, dtype=torch.bool, device=x.device).tril()  # (N, earlier N)
    total = (count[..., None, :] * past).sum(-1)
    mean = ((count * centre)[..., None, :] * past).sum(-1) / total.clamp(min=1)
    between = count[..., None, :] * (centre[..., None, :] - mean[..., None]).square()
    squares = ((within[..., None, :] + between) * past).sum(-1)
    return mean, squares / (total - 1).clamp(min=1)
