"""What the tables of LoRA training steps share: a side, its whole step, and how it is measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmarks.measure import timed
from retrain_assets.models import lora


@dataclass
class Side:
    """One row of the table: a training step and what was measured of it."""

    name: str
    step: Callable[[], None]
    flops: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


def optimizer_step(module: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """A whole training step of the adapter on `module`: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(lora.trainable(module), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def peak_memory_mb(step: Callable[[], None], device: torch.device) -> float:
    """Most memory torch held at once during a step beyond what it held before, in MB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    # Resident memory would count what the allocator keeps from the side measured before.
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        step()
    results = profiler.profiler
    assert results is not None
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(itertools.accumulate(changes, initial=0)) / 1e6


def measure(sides: list[Side], steps: int, device: torch.device) -> None:
    """Warm every side up once, then let them alternate."""
    for side in sides:
        side.step()
        side.peak_mb = peak_memory_mb(side.step, device)
    for _ in range(steps):
        for side in sides:
            side.seconds.append(timed(side.step, device))
