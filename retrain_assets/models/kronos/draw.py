"""Drawing tokens: filters, and the inverse CDF.

A draw is a function of its row's logits, settings and uniform number alone; the numbers are
those of `models.uniforms`.

Axes: N rows, U distributions, of which each row draws from one, V vocabulary, W tokens of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SUB_TOKENS = 2
"""Tokens of a bar, and with them uniform numbers that one draw of a bar takes."""


@dataclass(frozen=True)
class Filters:
    """How each row draws; tensors of shape (N, 1) on the device of the logits.

    temperature: float32. top_k: int64, 0 is off. top_p: float32, 1 is off.
    by_k: rows with a top_k, which only their `longest` likeliest tokens concern. by_p: the
    others with a top_p. free: the rest. All (rows,) int64.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    by_k: Tensor
    by_p: Tensor
    free: Tensor
    longest: int

    @classmethod
    def of(
        cls,
        temperature: NDArray[np.float64],
        top_k: NDArray[np.int64],
        top_p: NDArray[np.float64],
        device: torch.device,
    ) -> Filters:
        """Filters of N rows from arrays of shape (N,)."""
        limited, cut = top_k > 0, top_p < 1
        kinds = (limited, ~limited & cut, ~limited & ~cut)
        by_k, by_p, free = (torch.from_numpy(np.flatnonzero(kind)).to(device) for kind in kinds)
        return cls(
            temperature=torch.from_numpy(temperature).float()[:, None].to(device),
            top_k=torch.from_numpy(top_k)[:, None].to(device),
            top_p=torch.from_numpy(top_p).float()[:, None].to(device),
            by_k=by_k,
            by_p=by_p,
            free=free,
            longest=int(top_k.max(initial=0)),
        )


def draw(logits: Tensor, row: Tensor, filters: Filters, uniform: Tensor) -> Tensor:
    """Draw one token a row by inverse CDF.

    logits: (U, V). row: (N,) int64, the distribution each row draws from. uniform: (N,)
    float64 in [0, 1). Returns (N,) int64: the first token, in the order of the vocabulary,
    whose cumulative probability exceeds the uniform number. A filtered token is never drawn,
    since the cumulative sum does not rise on it.

    top_k acts first, then top_p on the mass that is left. Of the tokens in descending order,
    top_p keeps those before which at most top_p of the mass lies, so the one that crosses
    stays, as upstream has it. Tokens exactly as likely as the last one kept stay too.
    """
    tokens = torch.empty_like(row)
    if len(filters.free):
        tokens[filters.free] = _draw_kept(logits, row, filters, uniform, filters.free, None)
    if not len(filters.by_k) and not len(filters.by_p):
        return tokens
    ranked = _descending(logits)
    if len(filters.by_p):
        least = least_kept(ranked, row, filters, filters.by_p)
        tokens[filters.by_p] = _draw_kept(logits, row, filters, uniform, filters.by_p, least)
    if len(filters.by_k):
        # Whatever a top_k leaves is among these few, so nothing else is computed with.
        likeliest = _likeliest(logits, ranked, filters.longest)
        few, width = logits.gather(1, likeliest), likeliest.shape[1]
        least = least_kept(ranked[:, :width], row, filters, filters.by_k)
        place = _draw_kept(few, row, filters, uniform, filters.by_k, least)
        tokens[filters.by_k] = likeliest[row[filters.by_k], place]
    return tokens


def _draw_kept(
    logits: Tensor,
    row: Tensor,
    filters: Filters,
    uniform: Tensor,
    chosen: Tensor,
    least: Tensor | None,
) -> Tensor:
    """Draw for the chosen rows among logits (U, W) of at least `least` (chosen, 1); (chosen,)."""
    mine = logits[row[chosen]]  # (chosen, W)
    weights = ((mine - mine.amax(-1, keepdim=True)) / filters.temperature[chosen]).exp_()
    if least is not None:
        weights.mul_(mine >= least)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    mark = uniform[chosen, None] * cumulative[:, -1:]
    # The last weight above zero takes what rounding might carry beyond it. Of logits that are
    # not numbers anything may come out; the sampler reports them by its own check.
    last = (cumulative < cumulative[:, -1:]).sum(-1)
    return torch.minimum(torch.searchsorted(cumulative, mark, right=True)[:, 0], last)


def least_kept(ranked: Tensor, row: Tensor, filters: Filters, chosen: Tensor) -> Tensor:
    """The smallest logit that the filters of the chosen rows keep, (chosen, 1).

    ranked: the likeliest W logits of each distribution, descending, (U, W). chosen: numbers of
    rows, (chosen,). row, filters: as `draw`, which tells the rules.
    """
    mine = ranked[row[chosen]]  # (chosen, W)
    width = mine.shape[1]
    mass = ((mine - mine[:, :1]) / filters.temperature[chosen]).exp_().cumsum(-1)
    top_k = filters.top_k[chosen]
    k = torch.where(top_k > 0, top_k, width).clamp(max=width)
    by_k = (mine >= mine.gather(1, k - 1)).sum(-1, keepdim=True)  # equal ones stay in
    by_k = by_k.clamp(min=1)  # none is counted of what is not a number
    limit = filters.top_p[chosen] * mass.gather(1, by_k - 1)
    by_p = (mass <= limit).sum(-1, keepdim=True) + 1
    return mine.gather(1, torch.minimum(by_k, by_p) - 1)


def _likeliest(logits: Tensor, ranked: Tensor, count: int) -> Tensor:
    """Tokens (U, W), ascending, that hold the `count` likeliest of each distribution.

    W is `count`, or the whole vocabulary where equal logits leave no such cut.
    """
    vocabulary = logits.shape[1]
    count = min(count, vocabulary)
    inside = logits >= ranked[:, count - 1 : count]
    if bool((inside.sum(-1) != count).any()):
        return torch.arange(vocabulary, device=logits.device).expand(len(logits), -1)
    return inside.nonzero()[:, 1].view(-1, count)


def _descending(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return values.sort(dim=-1, descending=True).values
    # numpy sorts rows of floats several times faster than torch does on a CPU.
    return torch.from_numpy(-np.sort(-values.numpy(), axis=-1))
