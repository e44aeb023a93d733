"""One step of training: the gradients of a batch, in parts as large as memory takes.

Also what a step depends on beside its batch: the schedule of the learning rate, and the state of
the random generators.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrain_assets.models.forecaster import TrainingTask
from retrain_assets.models.memory import with_less

if TYPE_CHECKING:
    from torch import Tensor, nn

LOWEST_RATE = 0.1
"""Where the cosine decay ends, as a share of the peak learning rate."""


class NotFinite(Exception):
    """A loss or gradient that is no number any more; the trainer decides what comes of it."""


def gradients(
    module: nn.Module, task: TrainingTask, batch: NDArray[np.int64], micro_batch: int
) -> tuple[dict[str, float], int]:
    """Add the gradients of the mean loss over a batch; returns its losses and the micro-batch.

    batch: rows of training windows, `micro_batch` of them at once. Where memory does not suffice
    the micro-batch halves, and everything is computed again from the same random state, as if it
    had begun that way. Raises the device's own error when not one window fits, and NotFinite.
    """
    before = random_states(module)

    def accumulated(at_once: int) -> dict[str, float]:
        # A failed attempt drew dropout masks; the next one must draw the same.
        set_random_states(before, module)
        module.zero_grad(set_to_none=True)
        return _accumulated(module, task, batch, at_once)

    losses, micro_batch = with_less(accumulated, micro_batch)
    require_finite(losses, "training loss")
    return losses, micro_batch


def _accumulated(
    module: nn.Module, task: TrainingTask, batch: NDArray[np.int64], at_once: int
) -> dict[str, float]:
    import torch

    sums: dict[str, float] = {}
    for start in range(0, len(batch), at_once):
        rows = batch[start : start + at_once]
        share = len(rows) / len(batch)
        losses = task.loss(module, rows)
        torch.autograd.backward(losses["loss"] * share)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + share * float(value.detach())
    return sums


def require_finite(losses: Mapping[str, float], what: str) -> None:
    """Raise NotFinite, saying what it was, for a value that is no number or infinite."""
    if not all(math.isfinite(value) for value in losses.values()):
        raise NotFinite(f"the {what} is no longer finite ({dict(losses)})")


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then cosine decay to LOWEST_RATE."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def random_states(module: nn.Module) -> dict[str, Tensor]:
    """States of the generators that training draws from: the CPU's, and a card's."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    for device in {p.device for p in module.parameters() if p.device.type == "cuda"}:
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Tensor], module: nn.Module) -> None:
    """Put back what `random_states` gave."""
    import torch

    torch.set_rng_state(states["cpu"])
    for device in {p.device for p in module.parameters() if p.device.type == "cuda"}:
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)


@contextlib.contextmanager
def own_random_state(module: nn.Module) -> Iterator[None]:
    """Give the caller its random state back afterwards, on the CPU and the module's device."""
    import torch

    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        yield
