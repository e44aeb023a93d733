"""Toto 2's u-muP multipliers, folded into ordinary weights and taken out again.

A published linear layer computes (W x + b) * fan_in**-p: W and b are stored at unit scale, and
the multiplier is code (Blake et al., "u-muP", arXiv:2407.17465). Folded, the layer is a plain
nn.Linear of the same function. So a LoRA update added to its weight is the update that was trained
(beside the published layer, a merge would shrink it by fan_in**-p), and gradients are the true
ones, without u-muP's rescaling of the backward pass. Adapters of the two forms are not
interchangeable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_HEAD = "output_head.param_projection.proj"
READOUTS = (f"{_HEAD}.linear2", f"{_HEAD}.skip_proj")
"""Layers whose outputs leave the network; u-muP divides these by fan_in, others by its root."""


def power(layer: str) -> float:
    """The p of a linear layer's multiplier fan_in**-p, by the layer's name."""
    return 1.0 if layer in READOUTS else 0.5


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors -> tensors of `Toto2Network`; same names, shapes and types.

    Weights (out, in) and biases (out,) of linear layers are multiplied by in**-p in float64 and
    rounded once; every other tensor is passed on as it is.
    """
    return _multiplied(weights, sign=-1)


def unfold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `Toto2Network` -> published tensors, the inverse of `fold`.

    unfold(fold(w)) is w to one unit in the last place, and to the bit where in**p is a power
    of two.
    """
    return _multiplied(weights, sign=1)


def _multiplied(weights: Mapping[str, Tensor], *, sign: int) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer = name.rpartition(".")[0]
        matrix = weights.get(f"{layer}.weight")
        if matrix is None or matrix.ndim != 2:  # a norm, a residual weight, a per-dim scale
            out[name] = tensor
        else:
            factor = matrix.shape[1] ** (sign * power(layer))
            out[name] = (tensor.double() * factor).to(tensor.dtype)
    return out
